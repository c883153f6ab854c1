// Makes system calls and allocations of a program fail, or kills it, at a chosen moment: a library for LD_PRELOAD.
//
//   CARAVAN_FAULT_CALL        open read write fsync rename mkdir unlink truncate mmap close new, or "any": every call
//                             that changes the disk (open, write, fsync, rename, mkdir, unlink, truncate)
//   CARAVAN_FAULT_AT=N        the N-th such call (from 1) fails, once
//   CARAVAN_FAULT_DELAY_MS=T  the call that would fail sleeps for T milliseconds instead and then does its work
//   CARAVAN_FAULT_KILL_AT=N   SIGKILL at the N-th such call, before it does anything; a write has done its first half
//   CARAVAN_FAULT_ERRNO       what it fails with: a number, or EIO (the default), ENOSPC, EACCES, EINVAL, ENOMEM (the
//                             default of mmap), EMFILE, EROFS, EDQUOT, EINTR.  "new" calls the new handler
//                             if there is one and throws std::bad_alloc otherwise
//   CARAVAN_FAULT_UNDER=PATH  counts calls on files at or below this path only; new is always counted
//   CARAVAN_FAULT_DISK_BYTES=N  a disk with room for N bytes: the write that crosses them is cut, later ones give ENOSPC.
//                             Blocks cannot be reserved on it (fallocate gives EOPNOTSUPP), so that it fills in the
//                             middle of a file; nothing that is removed gives room back
//   CARAVAN_FAULT_COUNT=FILE  at the end, the number of calls of each kind as lines "open 12" (not after a kill)
//   CARAVAN_FAULT_TRACE=FILE  as it goes, a line "open /path" for each counted call (new left out)
//
// Threads share the counters; a program that the program starts inherits the variables and counts for itself.  Calls
// that libc makes inside itself are not seen, except fopen's and opendir's, nor the mappings of oneDNN.  Everything
// here uses system calls and no allocation: it runs inside operator new and before main.
//
// Not for programs with sanitizers: those must be the first library and replace the same functions.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <dlfcn.h>

#include <atomic>
#include <new>

namespace {

enum Kind { kOpen, kRead, kWrite, kFsync, kRename, kMkdir, kUnlink, kTruncate, kMmap, kClose, kNew, kKinds };
constexpr const char* kNames[kKinds] = {"open",   "read",     "write", "fsync", "rename", "mkdir",
                                        "unlink", "truncate", "mmap",  "close", "new"};
constexpr int kNothing = -1;
constexpr int kAny = kKinds;

struct Settings {
  std::atomic<bool> on{false};
  int call = kNothing;
  long fail_at = 0;
  long kill_at = 0;
  long delay_ms = 0;
  int error = 0;  // 0: the kind's own default
  char under[PATH_MAX] = "";
  std::size_t under_length = 0;
  long disk_bytes = -1;
  char count_file[PATH_MAX] = "";
  int trace = -1;
  long process = 0;
};
Settings settings;
std::atomic<long> counts[kKinds];
std::atomic<long> chosen{0};  // calls of the chosen kind
std::atomic<long> disk_used{0};

long number_of(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : strtol(text, nullptr, 10);
}

int errno_of(const char* text) {
  constexpr struct {
    const char* name;
    int code;
  } kCodes[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EACCES", EACCES}, {"EINVAL", EINVAL}, {"ENOMEM", ENOMEM},
                {"EMFILE", EMFILE}, {"EROFS", EROFS},   {"EDQUOT", EDQUOT}, {"EINTR", EINTR}};
  for (const auto& code : kCodes) {
    if (strcmp(text, code.name) == 0) {
      return code.code;
    }
  }
  return atoi(text);
}

int call_of(const char* name) {
  if (strcmp(name, "any") == 0) {
    return kAny;
  }
  for (int kind = 0; kind < kKinds; ++kind) {
    if (strcmp(name, kNames[kind]) == 0) {
      return kind;
    }
  }
  constexpr char kMessage[] = "CARAVAN_FAULT_CALL names no call\n";
  syscall(SYS_write, 2, kMessage, sizeof(kMessage) - 1);
  syscall(SYS_exit_group, 125);
  return kNothing;
}

bool changes_disk(int kind) {
  return kind == kOpen || kind == kWrite || kind == kFsync || kind == kRename || kind == kMkdir || kind == kUnlink ||
         kind == kTruncate;
}

// Whether the path lies at or below CARAVAN_FAULT_UNDER.
bool below(const char* path) {
  const std::size_t length = settings.under_length;
  return strncmp(path, settings.under, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

void path_of_descriptor(int descriptor, char (&path)[PATH_MAX]) {
  char link[64];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const long length = syscall(SYS_readlink, link, path, PATH_MAX - 1);
  path[length > 0 ? length : 0] = '\0';
}

// Absolute, with neither links nor dots resolved.
void absolute(int directory, const char* name, char (&path)[PATH_MAX]) {
  path[0] = '\0';
  if (name == nullptr) {
    return;
  }
  std::size_t length = 0;
  if (name[0] != '/') {
    if (directory == AT_FDCWD) {
      syscall(SYS_getcwd, path, PATH_MAX);
    } else {
      path_of_descriptor(directory, path);
    }
    length = strlen(path);
    if (length + 1 < PATH_MAX) {
      path[length++] = '/';
    }
  }
  const std::size_t copied = strnlen(name, PATH_MAX - 1 - length);
  memcpy(path + length, name, copied);
  path[length + copied] = '\0';
}

void trace(int kind, const char* path) {
  if (settings.trace >= 0) {
    char line[PATH_MAX + 32];
    const int length = snprintf(line, sizeof(line), "%s %s\n", kNames[kind], path);
    syscall(SYS_write, settings.trace, line, length);
  }
}

void kill_now() {
  syscall(SYS_kill, syscall(SYS_getpid), 9);
}

// To its end, whatever signals arrive.
void sleep_now() {
  timespec rest{settings.delay_ms / 1000, settings.delay_ms % 1000 * 1'000'000};
  while (syscall(SYS_nanosleep, &rest, &rest) != 0 && errno == EINTR) {
  }
}

enum class Verdict { kGoOn, kFail, kKill };

Verdict count(int kind, const char* path) {
  counts[kind].fetch_add(1, std::memory_order_relaxed);
  if (kind != kNew) {
    trace(kind, path);
  }
  if (kind != settings.call && !(settings.call == kAny && changes_disk(kind))) {
    return Verdict::kGoOn;
  }
  const long n = chosen.fetch_add(1) + 1;
  if (n == settings.kill_at) {
    return Verdict::kKill;
  }
  return n == settings.fail_at ? Verdict::kFail : Verdict::kGoOn;
}

// False, with errno set, when this call is the one to fail.
bool pass(Verdict verdict, int kind) {
  if (verdict == Verdict::kKill) {
    kill_now();
  }
  if (verdict == Verdict::kFail && settings.delay_ms > 0) {
    sleep_now();
    return true;
  }
  if (verdict == Verdict::kFail) {
    errno = settings.error != 0 ? settings.error : kind == kMmap ? ENOMEM : EIO;
    return false;
  }
  return true;
}

bool watches_paths() {
  return settings.under_length > 0 || settings.trace >= 0;
}

bool allowed_at(int kind, int directory, const char* name) {
  if (!settings.on.load(std::memory_order_acquire)) {
    return true;
  }
  const int saved = errno;
  char path[PATH_MAX] = "";
  if (watches_paths()) {
    absolute(directory, name, path);
  }
  const bool counted = settings.under_length == 0 || below(path);
  errno = saved;
  return !counted || pass(count(kind, path), kind);
}

// The verdict on a call on an open file; `counted`: whether it lies where calls are counted.
Verdict judge(int kind, int descriptor, bool& counted) {
  counted = false;
  if (!settings.on.load(std::memory_order_acquire) || descriptor == settings.trace) {
    return Verdict::kGoOn;
  }
  const int saved = errno;
  char path[PATH_MAX] = "";
  if (watches_paths()) {
    path_of_descriptor(descriptor, path);
  }
  counted = settings.under_length == 0 || below(path);
  errno = saved;
  return counted ? count(kind, path) : Verdict::kGoOn;
}

bool allowed(int kind, int descriptor) {
  bool counted = false;
  return pass(judge(kind, descriptor, counted), kind);
}

// Runs `real(bytes)` for a write of `bytes`, shortened as the disk and the plan want it.
template <typename Call>
ssize_t guarded_write(int descriptor, std::size_t bytes, const Call& real) {
  bool counted = false;
  const Verdict verdict = judge(kWrite, descriptor, counted);
  if (verdict == Verdict::kKill) {
    if (bytes > 1) {
      real(bytes / 2);
    }
    kill_now();
  }
  if (!pass(verdict, kWrite)) {
    return -1;
  }
  if (!counted || settings.disk_bytes < 0 || bytes == 0) {
    return real(bytes);
  }
  const long before = disk_used.fetch_add(static_cast<long>(bytes));
  const long room = settings.disk_bytes - before;
  if (room <= 0) {
    errno = ENOSPC;
    return -1;
  }
  return real(static_cast<long>(bytes) < room ? bytes : static_cast<std::size_t>(room));
}

// The first `bytes` of the buffers, as one write would take them.
template <typename Call>
ssize_t write_buffers(const iovec* buffers, int count, std::size_t bytes, const Call& real) {
  iovec cut[IOV_MAX];
  int used = 0;
  for (; used < count && used < IOV_MAX && bytes > 0; ++used) {
    cut[used] = buffers[used];
    cut[used].iov_len = cut[used].iov_len < bytes ? cut[used].iov_len : bytes;
    bytes -= cut[used].iov_len;
  }
  return real(cut, used);
}

std::size_t total(const iovec* buffers, int count) {
  std::size_t bytes = 0;
  for (int i = 0; i < count; ++i) {
    bytes += buffers[i].iov_len;
  }
  return bytes;
}

void* allocate(std::size_t bytes, std::size_t alignment, bool may_throw) {
  if (settings.on.load(std::memory_order_acquire)) {
    const Verdict verdict = count(kNew, "");
    if (verdict == Verdict::kKill) {
      kill_now();
    }
    if (verdict == Verdict::kFail) {
      // As the real one: whoever asked to be told may find memory, and then this allocation succeeds.
      const std::new_handler handler = std::get_new_handler();
      if (handler != nullptr) {
        handler();
      } else if (may_throw) {
        throw std::bad_alloc();
      } else {
        return nullptr;
      }
    }
  }
  bytes = bytes == 0 ? 1 : bytes;
  void* block = nullptr;
  if (alignment == 0) {
    block = malloc(bytes);
  } else if (posix_memalign(&block, alignment < sizeof(void*) ? sizeof(void*) : alignment, bytes) != 0) {
    block = nullptr;
  }
  if (block == nullptr && may_throw) {
    throw std::bad_alloc();
  }
  return block;
}

FILE* (*real_fopen)(const char*, const char*) = nullptr;
DIR* (*real_opendir)(const char*) = nullptr;

__attribute__((constructor)) void start() {
  real_fopen = reinterpret_cast<FILE* (*)(const char*, const char*)>(dlsym(RTLD_NEXT, "fopen"));
  real_opendir = reinterpret_cast<DIR* (*)(const char*)>(dlsym(RTLD_NEXT, "opendir"));
  const char* under = getenv("CARAVAN_FAULT_UNDER");
  if (under != nullptr && *under != '\0') {
    if (realpath(under, settings.under) == nullptr) {  // it may not be there yet
      absolute(AT_FDCWD, under, settings.under);
    }
    settings.under_length = strlen(settings.under);
    while (settings.under_length > 1 && settings.under[settings.under_length - 1] == '/') {
      --settings.under_length;
    }
  }
  const char* call = getenv("CARAVAN_FAULT_CALL");
  settings.call = call == nullptr || *call == '\0' ? kNothing : call_of(call);
  settings.fail_at = number_of("CARAVAN_FAULT_AT", 0);
  settings.kill_at = number_of("CARAVAN_FAULT_KILL_AT", 0);
  settings.delay_ms = number_of("CARAVAN_FAULT_DELAY_MS", 0);
  settings.disk_bytes = number_of("CARAVAN_FAULT_DISK_BYTES", -1);
  const char* error = getenv("CARAVAN_FAULT_ERRNO");
  settings.error = error == nullptr || *error == '\0' ? 0 : errno_of(error);
  if (const char* file = getenv("CARAVAN_FAULT_COUNT"); file != nullptr && *file != '\0') {
    absolute(AT_FDCWD, file, settings.count_file);
  }
  if (const char* file = getenv("CARAVAN_FAULT_TRACE"); file != nullptr && *file != '\0') {
    const long opened = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    settings.trace = static_cast<int>(opened);
  }
  settings.process = syscall(SYS_getpid);
  errno = 0;
  settings.on.store(true, std::memory_order_release);
}

// A child that was forked and runs no program of its own would write its parent's numbers.
__attribute__((destructor)) void finish() {
  if (settings.count_file[0] == '\0' || syscall(SYS_getpid) != settings.process) {
    return;
  }
  char text[1024];
  int length = 0;
  for (int kind = 0; kind < kKinds; ++kind) {
    length += snprintf(text + length, sizeof(text) - static_cast<std::size_t>(length), "%s %ld\n", kNames[kind],
                       counts[kind].load());
  }
  const long file = syscall(SYS_openat, AT_FDCWD, settings.count_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file >= 0) {
    syscall(SYS_write, file, text, length);
    syscall(SYS_close, file);
  }
}

int open_at(int directory, const char* path, int flags, mode_t mode) {
  return allowed_at(kOpen, directory, path) ? static_cast<int>(syscall(SYS_openat, directory, path, flags, mode)) : -1;
}

// oneDNN (2.6) maps memory for the code that it makes and never looks whether it got it: nothing that is tested here.
bool called_by_onednn(void* caller) {
  Dl_info info{};
  return dladdr(caller, &info) != 0 && info.dli_fname != nullptr && strstr(info.dli_fname, "libdnnl") != nullptr;
}

void* map(void* caller, void* address, size_t length, int protection, int flags, int descriptor, off_t offset) {
  bool good = true;
  if ((flags & MAP_ANONYMOUS) == 0) {
    good = allowed(kMmap, descriptor);
  } else if (settings.under_length == 0 && !called_by_onednn(caller)) {
    good = allowed_at(kMmap, AT_FDCWD, "/");
  }
  return good ? reinterpret_cast<void*>(syscall(SYS_mmap, address, length, protection, flags, descriptor, offset))
              : MAP_FAILED;
}

bool makes_file(int flags) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
}

// The mode that open() and its like take after `flags` when they may create a file.
#define CARAVAN_TAKE_MODE(flags)                            \
  mode_t mode = 0;                                          \
  if (makes_file(flags)) {                                  \
    va_list rest;                                           \
    va_start(rest, flags);                                  \
    mode = static_cast<mode_t>(va_arg(rest, unsigned int)); \
    va_end(rest);                                           \
  }                                                         \
  static_assert(true, "")

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  CARAVAN_TAKE_MODE(flags);
  return open_at(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  CARAVAN_TAKE_MODE(flags);
  return open_at(AT_FDCWD, path, flags, mode);
}
int openat(int directory, const char* path, int flags, ...) {
  CARAVAN_TAKE_MODE(flags);
  return open_at(directory, path, flags, mode);
}
int openat64(int directory, const char* path, int flags, ...) {
  CARAVAN_TAKE_MODE(flags);
  return open_at(directory, path, flags, mode);
}
// What a program compiled with _FORTIFY_SOURCE calls.
int __open_2(const char* path, int flags) {
  return open_at(AT_FDCWD, path, flags, 0);
}
int __open64_2(const char* path, int flags) {
  return open_at(AT_FDCWD, path, flags, 0);
}
int __openat_2(int directory, const char* path, int flags) {
  return open_at(directory, path, flags, 0);
}
int __openat64_2(int directory, const char* path, int flags) {
  return open_at(directory, path, flags, 0);
}
int creat(const char* path, mode_t mode) {
  return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
int creat64(const char* path, mode_t mode) {
  return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
FILE* fopen(const char* path, const char* mode) {
  return allowed_at(kOpen, AT_FDCWD, path) ? real_fopen(path, mode) : nullptr;
}
FILE* fopen64(const char* path, const char* mode) {
  return allowed_at(kOpen, AT_FDCWD, path) ? real_fopen(path, mode) : nullptr;
}
DIR* opendir(const char* path) {
  return allowed_at(kOpen, AT_FDCWD, path) ? real_opendir(path) : nullptr;
}

// The descriptor is gone even when close fails, as on Linux.
int close(int descriptor) {
  const bool good = allowed(kClose, descriptor);
  const int code = errno;
  const long result = syscall(SYS_close, descriptor);
  errno = good ? errno : code;
  return good ? static_cast<int>(result) : -1;
}

ssize_t read(int descriptor, void* bytes, size_t count) {
  return allowed(kRead, descriptor) ? syscall(SYS_read, descriptor, bytes, count) : -1;
}
ssize_t pread(int descriptor, void* bytes, size_t count, off_t offset) {
  return allowed(kRead, descriptor) ? syscall(SYS_pread64, descriptor, bytes, count, offset) : -1;
}
ssize_t pread64(int descriptor, void* bytes, size_t count, off64_t offset) {
  return allowed(kRead, descriptor) ? syscall(SYS_pread64, descriptor, bytes, count, offset) : -1;
}
ssize_t readv(int descriptor, const iovec* buffers, int count) {
  return allowed(kRead, descriptor) ? syscall(SYS_readv, descriptor, buffers, count) : -1;
}

ssize_t write(int descriptor, const void* bytes, size_t count) {
  return guarded_write(descriptor, count, [&](size_t n) { return syscall(SYS_write, descriptor, bytes, n); });
}
ssize_t pwrite(int descriptor, const void* bytes, size_t count, off_t offset) {
  return guarded_write(descriptor, count,
                       [&](size_t n) { return syscall(SYS_pwrite64, descriptor, bytes, n, offset); });
}
ssize_t pwrite64(int descriptor, const void* bytes, size_t count, off64_t offset) {
  return guarded_write(descriptor, count,
                       [&](size_t n) { return syscall(SYS_pwrite64, descriptor, bytes, n, offset); });
}
ssize_t writev(int descriptor, const iovec* buffers, int count) {
  return guarded_write(descriptor, total(buffers, count), [&](size_t n) {
    return write_buffers(buffers, count, n,
                         [&](const iovec* cut, int used) { return syscall(SYS_writev, descriptor, cut, used); });
  });
}
// The kernel takes the offset in two halves; on 64-bit machines the first holds all of it.
ssize_t pwritev(int descriptor, const iovec* buffers, int count, off_t offset) {
  return guarded_write(descriptor, total(buffers, count), [&](size_t n) {
    return write_buffers(buffers, count, n, [&](const iovec* cut, int used) {
      return syscall(SYS_pwritev, descriptor, cut, used, offset, 0);
    });
  });
}
ssize_t pwritev64(int descriptor, const iovec* buffers, int count, off64_t offset) {
  return pwritev(descriptor, buffers, count, offset);
}
ssize_t sendfile(int to, int from, off_t* offset, size_t count) noexcept {
  return guarded_write(to, count, [&](size_t n) { return syscall(SYS_sendfile, to, from, offset, n); });
}
ssize_t sendfile64(int to, int from, off64_t* offset, size_t count) noexcept {
  return guarded_write(to, count, [&](size_t n) { return syscall(SYS_sendfile, to, from, offset, n); });
}
ssize_t copy_file_range(int from, off64_t* at, int to, off64_t* to_at, size_t count, unsigned int flags) {
  return guarded_write(to, count,
                       [&](size_t n) { return syscall(SYS_copy_file_range, from, at, to, to_at, n, flags); });
}

int fsync(int descriptor) {
  return allowed(kFsync, descriptor) ? static_cast<int>(syscall(SYS_fsync, descriptor)) : -1;
}
int fdatasync(int descriptor) {
  return allowed(kFsync, descriptor) ? static_cast<int>(syscall(SYS_fdatasync, descriptor)) : -1;
}

// A rename is where the new name is.
int rename(const char* from, const char* to) noexcept {
  return allowed_at(kRename, AT_FDCWD, to) ? static_cast<int>(syscall(SYS_rename, from, to)) : -1;
}
int renameat(int from_directory, const char* from, int to_directory, const char* to) noexcept {
  return allowed_at(kRename, to_directory, to)
             ? static_cast<int>(syscall(SYS_renameat2, from_directory, from, to_directory, to, 0))
             : -1;
}
int renameat2(int from_directory, const char* from, int to_directory, const char* to, unsigned int flags) noexcept {
  return allowed_at(kRename, to_directory, to)
             ? static_cast<int>(syscall(SYS_renameat2, from_directory, from, to_directory, to, flags))
             : -1;
}

int mkdir(const char* path, mode_t mode) noexcept {
  return allowed_at(kMkdir, AT_FDCWD, path) ? static_cast<int>(syscall(SYS_mkdirat, AT_FDCWD, path, mode)) : -1;
}
int mkdirat(int directory, const char* path, mode_t mode) noexcept {
  return allowed_at(kMkdir, directory, path) ? static_cast<int>(syscall(SYS_mkdirat, directory, path, mode)) : -1;
}

int unlink(const char* path) noexcept {
  return allowed_at(kUnlink, AT_FDCWD, path) ? static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, 0)) : -1;
}
int unlinkat(int directory, const char* path, int flags) noexcept {
  return allowed_at(kUnlink, directory, path) ? static_cast<int>(syscall(SYS_unlinkat, directory, path, flags)) : -1;
}
int rmdir(const char* path) noexcept {
  return allowed_at(kUnlink, AT_FDCWD, path) ? static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR))
                                             : -1;
}
int remove(const char* path) noexcept {
  if (!allowed_at(kUnlink, AT_FDCWD, path)) {
    return -1;
  }
  const long result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  return static_cast<int>(result == 0 || errno != EISDIR ? result
                                                         : syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR));
}

int ftruncate(int descriptor, off_t length) noexcept {
  return allowed(kTruncate, descriptor) ? static_cast<int>(syscall(SYS_ftruncate, descriptor, length)) : -1;
}
int ftruncate64(int descriptor, off64_t length) noexcept {
  return ftruncate(descriptor, length);
}
int fallocate(int descriptor, int mode, off_t offset, off_t length) {
  if (!allowed(kTruncate, descriptor)) {
    return -1;
  }
  if (settings.disk_bytes >= 0) {
    errno = EOPNOTSUPP;
    return -1;
  }
  return static_cast<int>(syscall(SYS_fallocate, descriptor, mode, offset, length));
}
int fallocate64(int descriptor, int mode, off64_t offset, off64_t length) {
  return fallocate(descriptor, mode, offset, length);
}
int posix_fallocate(int descriptor, off_t offset, off_t length) {
  return fallocate(descriptor, 0, offset, length) == 0 ? 0 : errno;
}
int posix_fallocate64(int descriptor, off64_t offset, off64_t length) {
  return posix_fallocate(descriptor, offset, length);
}

void* mmap(void* address, size_t length, int protection, int flags, int descriptor, off_t offset) noexcept {
  return map(__builtin_return_address(0), address, length, protection, flags, descriptor, offset);
}
void* mmap64(void* address, size_t length, int protection, int flags, int descriptor, off64_t offset) noexcept {
  return map(__builtin_return_address(0), address, length, protection, flags, descriptor, offset);
}

// Ends without the destructor above.
void _exit(int status) {
  finish();
  syscall(SYS_exit_group, status);
  __builtin_unreachable();
}
void _Exit(int status) noexcept {
  _exit(status);
}

}  // extern "C"

void* operator new(std::size_t bytes) {
  return allocate(bytes, 0, true);
}
void* operator new[](std::size_t bytes) {
  return allocate(bytes, 0, true);
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, 0, false);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, 0, false);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment), true);
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment), true);
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(bytes, static_cast<std::size_t>(alignment), false);
}
void* operator new[](std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return allocate(bytes, static_cast<std::size_t>(alignment), false);
}

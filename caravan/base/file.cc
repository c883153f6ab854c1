// The writing half of file.h.
#include "caravan/base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <utility>

#include "caravan/base/descriptor.h"
#include "caravan/base/directory.h"
#include "caravan/base/error.h"
#include "caravan/base/system_error.h"
#include "caravan/base/text.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr int kNameAttempts = 1000;

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

// ".model.safetensors.4711.3.partial" beside the target: the same file system, so that rename works; a name of its own
// for every process and call.  A long name is cut so that the additions fit into the 255 bytes of a file name.
fs::path hidden_neighbour(const fs::path& target) {
  static std::atomic<std::uint64_t> counter{0};
  const std::string name = target.filename().string().substr(0, 200);
  return parent_of(target) / fmt::format(".{}.{}.{}.partial", name, getpid(), counter.fetch_add(1));
}

// Without a trailing slash, and without a symbolic link at its end: a rename would replace the link, not the file.
fs::path resolve_target(const fs::path& target) {
  fs::path plain = target.lexically_normal();
  if (plain.filename().empty()) {
    plain = plain.parent_path();
  }
  const std::string name = plain.filename().string();
  if (name.empty() || name == "." || name == "..") {
    throw FileError(
        fmt::format("\"{}\": names no file that could be written; give a name inside a directory", target.string()));
  }
  std::error_code error;
  if (!fs::is_symlink(plain, error)) {
    return plain;
  }
  const fs::path resolved = fs::canonical(plain, error);
  if (error) {
    throw_file_error(target, "is a symbolic link that leads nowhere", error.value());
  }
  return resolved;
}

void require_parent(const fs::path& target) {
  const fs::path parent = parent_of(target);
  struct stat status {};
  if (stat(parent.c_str(), &status) != 0) {
    throw_file_error(target, fmt::format("the directory \"{}\" cannot be used", parent.string()), errno);
  }
  if (!S_ISDIR(status.st_mode)) {
    throw_file_error(target, fmt::format("\"{}\" cannot be used", parent.string()), ENOTDIR);
  }
}

void require_space(const fs::path& target, std::int64_t expected_bytes) {
  if (expected_bytes <= 0) {
    return;
  }
  const std::int64_t available = free_space(parent_of(target));
  if (available < expected_bytes) {
    throw FileError(fmt::format("{}: needs {} bytes, but the file system has {} free; nothing was written",
                                target.string(), grouped(expected_bytes), grouped(available)));
  }
}

int fsync_retrying(int descriptor) {
  int result = 0;
  do {
    result = fsync(descriptor);
  } while (result != 0 && errno == EINTR);
  return result;
}

// Makes the names in an open directory durable.  Some file systems know no fsync of directories and answer EINVAL.
void sync_directory(const Descriptor& directory, const fs::path& target) {
  if (fsync_retrying(directory.get()) != 0 && errno != EINVAL) {
    throw_file_error(target, "is written, but its directory could not be made durable", errno);
  }
}

// Everything below `directory`, then the directory itself.  Links are not followed.
void sync_tree(const fs::path& directory, const fs::path& target) {
  const auto sync = [&target](const fs::path& path, int flags) {
    const Descriptor file(path, O_RDONLY | O_NOFOLLOW | flags);
    if (!file.valid() || (fsync_retrying(file.get()) != 0 && (flags != O_DIRECTORY || errno != EINVAL))) {
      throw_file_error(target, fmt::format("\"{}\" could not be made durable", path.filename().string()), errno);
    }
  };
  for (const std::string& name : names_in(directory)) {
    const fs::path path = directory / name;
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0) {
      throw_file_error(path, "cannot be looked at", errno);
    }
    if (S_ISDIR(status.st_mode)) {
      sync_tree(path, target);
    } else if (S_ISREG(status.st_mode)) {
      sync(path, 0);
    }
  }
  sync(directory, O_DIRECTORY);
}

// renameat2 with flags; false where kernel or file system do not know it, errno then being EINVAL, ENOSYS or ENOTSUP.
bool flagged_rename_unknown(int code) {
  return code == EINVAL || code == ENOSYS || code == ENOTSUP;
}

// A former target that had to make way.
void remove_former(const fs::path& former, const fs::path& target) {
  try {
    remove_tree(former);
  } catch (const FileError& error) {
    throw FileError(fmt::format("{}: is in place, but its former content is left in \"{}\": {}", target.string(),
                                former.string(), error.what()));
  }
}

// Two renames where the exchange is unknown: for a moment the target is missing, and comes back should the second fail.
void replace_by_two_renames(const fs::path& staged, const fs::path& target) {
  const fs::path aside = hidden_neighbour(target);
  if (rename(target.c_str(), aside.c_str()) != 0) {
    throw_file_error(target, "cannot be replaced", errno);
  }
  if (rename(staged.c_str(), target.c_str()) != 0) {
    const int code = errno;
    if (rename(aside.c_str(), target.c_str()) != 0) {
      throw_file_error(target, fmt::format("cannot be replaced; its former content is in \"{}\"", aside.string()),
                       code);
    }
    throw_file_error(target, "cannot be replaced", code);
  }
  // Back under the name that the caller removes.
  if (rename(aside.c_str(), staged.c_str()) != 0) {
    throw_file_error(target, fmt::format("is in place, but its former content is left in \"{}\"", aside.string()),
                     errno);
  }
}

}  // namespace

std::int64_t free_space(const fs::path& path) {
  fs::path existing = path.empty() ? fs::path(".") : path;
  struct statvfs status {};
  while (statvfs(existing.c_str(), &status) != 0) {
    const int code = errno;
    if (code == EINTR) {
      continue;
    }
    const fs::path parent = parent_of(existing);
    if ((code != ENOENT && code != ENOTDIR) || parent == existing) {
      throw_file_error(path, "its file system cannot be asked for free space", code);
    }
    existing = parent;
  }
  return static_cast<std::int64_t>(status.f_bavail) * static_cast<std::int64_t>(status.f_frsize);
}

AtomicFile::AtomicFile(const fs::path& target, std::int64_t expected_bytes) : target_(resolve_target(target)) {
  require_parent(target_);
  struct stat former {};
  const bool exists = stat(target_.c_str(), &former) == 0;
  if (exists && !S_ISREG(former.st_mode)) {  // a rename over /dev/null would replace the device
    throw FileError(fmt::format("{}: is {} and cannot be replaced by a file", target_.string(),
                                S_ISDIR(former.st_mode) ? "a directory" : "a device or pipe"));
  }
  require_space(target_, expected_bytes);
  for (int attempt = 0; descriptor_ < 0; ++attempt) {
    staged_ = hidden_neighbour(target_);
    Descriptor file(staged_, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (!file.valid() && (errno != EEXIST || attempt == kNameAttempts)) {
      throw_file_error(target_, "cannot be written", errno);
    }
    descriptor_ = file.release();
  }
  if (exists) {
    // The file keeps its permissions; where the system refuses, it has those of a new file.
    [[maybe_unused]] const int refused = fchmod(descriptor_, former.st_mode & 07777);
  }
  // Takes the blocks now, while failing costs nothing.  File systems that cannot promise blocks say so and pass.
  if (expected_bytes > 0 && fallocate(descriptor_, FALLOC_FL_KEEP_SIZE, 0, expected_bytes) != 0 &&
      (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)) {
    const int code = errno;
    discard();
    throw_file_error(target_, fmt::format("needs {} bytes, nothing was written", grouped(expected_bytes)), code);
  }
}

AtomicFile::~AtomicFile() {
  discard();
}

void AtomicFile::discard() noexcept {
  if (descriptor_ >= 0) {
    ::close(std::exchange(descriptor_, -1));
    ::unlink(staged_.c_str());
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (descriptor_ < 0) {
    throw FileError(fmt::format("{}: no longer open for writing", target_.string()));
  }
  constexpr std::size_t kMostAtOnce = std::size_t{1} << 30;  // Linux writes at most 2^31 - 4096 bytes a call
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), std::min(bytes.size(), kMostAtOnce));
    if (count <= 0) {
      if (count < 0 && errno == EINTR) {
        continue;
      }
      const int code = count < 0 ? errno : EIO;
      discard();
      throw_file_error(target_, fmt::format("writing stopped at byte {}, nothing was kept", grouped(written_)), code);
    }
    written_ += count;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text.data(), text.size())));
}

void AtomicFile::commit() {
  if (descriptor_ < 0) {
    throw FileError(fmt::format("{}: no longer open for writing", target_.string()));
  }
  const auto fail = [this](const char* what) {
    const int code = errno;
    discard();
    ::unlink(staged_.c_str());
    throw_file_error(target_, what, code);
  };
  const Descriptor directory(parent_of(target_), O_RDONLY | O_DIRECTORY);
  if (!directory.valid()) {
    fail("its directory cannot be opened");
  }
  // Cutting at the length gives back blocks that were taken beyond it.
  if (ftruncate(descriptor_, written_) != 0 || fsync_retrying(descriptor_) != 0) {
    fail("could not be made durable");
  }
  // Network file systems report late failures here; after EINTR the descriptor is closed on Linux.
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) {
    fail("could not be closed");
  }
  if (::rename(staged_.c_str(), target_.c_str()) != 0) {
    fail("cannot be replaced");
  }
  sync_directory(directory, target_);
}

void write_text_file(const fs::path& target, std::string_view text) {
  AtomicFile file(target, static_cast<std::int64_t>(text.size()));
  file.write(text);
  file.commit();
}

AtomicDirectory::AtomicDirectory(const fs::path& target, bool replace, std::int64_t expected_bytes)
    : target_(resolve_target(target)), replace_(replace) {
  require_parent(target_);
  struct stat former {};
  if (lstat(target_.c_str(), &former) == 0) {
    if (!replace) {
      throw FileError(
          fmt::format("{}: exists already; choose another name or ask for it to be replaced", target_.string()));
    }
    if (!S_ISDIR(former.st_mode)) {
      throw FileError(
          fmt::format("{}: is a file, and a directory is to take its place; remove it first", target_.string()));
    }
  }
  require_space(target_, expected_bytes);
  for (int attempt = 0;; ++attempt) {
    staged_ = hidden_neighbour(target_);
    if (mkdir(staged_.c_str(), 0777) == 0) {
      return;
    }
    if (errno != EEXIST || attempt == kNameAttempts) {
      throw_file_error(target_, "cannot be created", errno);
    }
  }
}

AtomicDirectory::~AtomicDirectory() {
  if (!committed_) {
    try {
      remove_tree(staged_);
    } catch (const std::exception&) {  // a destructor has nobody to tell
    }
  }
}

void AtomicDirectory::commit() {
  if (committed_) {
    throw FileError(fmt::format("{}: has been committed already", target_.string()));
  }
  const Descriptor parent(parent_of(target_), O_RDONLY | O_DIRECTORY);
  if (!parent.valid()) {
    throw_file_error(target_, "its directory cannot be opened", errno);
  }
  sync_tree(staged_, target_);
  // First as if nothing were there; the kernel decides, so that nobody can slip in between question and rename.
  int code = renameat2(AT_FDCWD, staged_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) == 0 ? 0 : errno;
  bool exchanged = false;
  if (flagged_rename_unknown(code)) {
    std::error_code ignored;
    if (!fs::exists(fs::symlink_status(target_, ignored))) {
      code = rename(staged_.c_str(), target_.c_str()) == 0 ? 0 : errno;
    } else {
      code = EEXIST;
    }
  }
  if (code == EEXIST && replace_) {
    code = renameat2(AT_FDCWD, staged_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0 ? 0 : errno;
    if (flagged_rename_unknown(code)) {
      replace_by_two_renames(staged_, target_);
      code = 0;
    }
    exchanged = true;
  }
  if (code != 0) {
    throw_file_error(target_, "cannot be put in place", code);
  }
  committed_ = true;
  sync_directory(parent, target_);
  if (exchanged) {  // staged_ now names what the target was
    remove_former(staged_, target_);
  }
}

}  // namespace caravan

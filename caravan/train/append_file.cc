#include "caravan/train/append_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "caravan/base/error.h"

namespace caravan::train {

namespace {

[[noreturn]] void throw_refused(const std::filesystem::path& path, const char* what, int code) {
  throw FileError(fmt::format("{}: {}: {}", path.string(), what, std::generic_category().message(code)));
}

}  // namespace

AppendFile::AppendFile(const std::filesystem::path& path, bool fresh) : path_(path) {
  do {
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | (fresh ? O_EXCL : 0), 0666);
  } while (descriptor_ < 0 && errno == EINTR);
  if (descriptor_ < 0) {
    throw_refused(path_, "cannot be opened for writing", errno);
  }
}

AppendFile::~AppendFile() {
  ::close(descriptor_);
}

void AppendFile::append(std::string_view record) {
  kept_ += record;
  retry();
}

void AppendFile::retry() {
  if (kept_.empty()) {
    return;
  }
  struct stat before {};
  if (::fstat(descriptor_, &before) != 0) {
    throw_refused(path_, "cannot be asked for its size", errno);
  }
  ssize_t written = 0;
  do {
    written = ::write(descriptor_, kept_.data(), kept_.size());
  } while (written < 0 && errno == EINTR);
  if (written < 0) {
    throw_refused(path_, "cannot be written", errno);
  }
  const std::size_t size = kept_.size();
  if (static_cast<std::size_t>(written) < size) {
    // What other programs read must end with a whole record.
    if (::ftruncate(descriptor_, before.st_size) != 0) {
      kept_.erase(0, static_cast<std::size_t>(written));
    }
    throw FileError(
        fmt::format("{}: the system took {} of {} bytes; is the disk full?", path_.string(), written, size));
  }
  kept_.clear();
}

void AppendFile::sync() {
  // Pipes and some file systems cannot; that is no failure of the write.
  if (::fdatasync(descriptor_) != 0 && errno != EINVAL && errno != EROFS) {
    throw_refused(path_, "cannot be made durable", errno);
  }
}

}  // namespace caravan::train

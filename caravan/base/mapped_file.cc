// The reading half of file.h.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "caravan/base/descriptor.h"
#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/system_error.h"
#include "caravan/base/text.h"

namespace caravan {

MappedFile MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: a pipe in the place of a file must not stop the program before it is refused.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  if (!file.valid()) {
    throw_file_error(path, "cannot be opened", errno);
  }
  struct stat status {};
  if (fstat(file.get(), &status) != 0) {
    throw_file_error(path, "cannot be examined", errno);
  }
  if (!S_ISREG(status.st_mode)) {
    throw FileError(fmt::format("{}: is {}, but a regular file was expected", path.string(),
                                S_ISDIR(status.st_mode) ? "a directory" : "a device or pipe"));
  }
  MappedFile result;
  result.path_ = path;
  const std::size_t size = static_cast<std::size_t>(status.st_size);
  if (size == 0) {
    return result;  // the system maps no empty ranges
  }
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) {
    throw_file_error(path, fmt::format("cannot be mapped ({} bytes)", grouped(status.st_size)), errno);
  }
  result.owner_ = std::shared_ptr<const void>(address, [size](void* mapped) { munmap(mapped, size); });
  result.bytes_ = {static_cast<const std::byte*>(address), size};
  return result;
}

std::string read_text_file(const std::filesystem::path& path, std::int64_t max_bytes) {
  const Descriptor file(path, O_RDONLY);
  if (!file.valid()) {
    throw_file_error(path, "cannot be opened", errno);
  }
  // Read to the end rather than trusting a size: pipes and /proc have none.
  std::string text;
  std::size_t used = 0;
  for (;;) {
    if (used == text.size()) {
      text.resize(std::max<std::size_t>(std::size_t{1} << 16, 2 * used));
    }
    const ssize_t count = ::read(file.get(), text.data() + used, text.size() - used);
    if (count < 0) {
      if (errno == EINTR) {
        continue;
      }
      throw_file_error(path, "cannot be read", errno);
    }
    if (count == 0) {
      break;
    }
    used += static_cast<std::size_t>(count);
    if (static_cast<std::int64_t>(used) > max_bytes) {
      throw FormatError(
          fmt::format("{}: longer than the {} bytes that are read here", path.string(), grouped(max_bytes)));
    }
  }
  text.resize(used);
  return text;
}

}  // namespace caravan

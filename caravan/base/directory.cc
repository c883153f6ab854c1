#include "caravan/base/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "caravan/base/descriptor.h"
#include "caravan/base/system_error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// Cuts ".DIGITS" off the end of `name` and returns its number.
std::optional<std::int64_t> take_number(std::string_view& name) {
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view digits = name.substr(dot + 1);
  std::int64_t number = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.empty() || digits.front() == '-' || error != std::errc() || end != digits.data() + digits.size()) {
    return std::nullopt;
  }
  name = name.substr(0, dot);
  return number;
}

// The process that staged something under this name; nothing when the name is no such one.
std::optional<std::int64_t> staging_process(std::string_view name) {
  constexpr std::string_view kEnd = ".partial";
  if (!name.starts_with('.') || !name.ends_with(kEnd)) {
    return std::nullopt;
  }
  name.remove_suffix(kEnd.size());
  if (!take_number(name)) {
    return std::nullopt;
  }
  const std::optional<std::int64_t> process = take_number(name);
  return name.size() > 1 ? process : std::nullopt;
}

bool runs(std::int64_t process) {
  return process != getpid() && process > 0 && (kill(static_cast<pid_t>(process), 0) == 0 || errno == EPERM);
}

}  // namespace

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  Descriptor descriptor(directory, O_RDONLY | O_DIRECTORY);
  if (!descriptor.valid() && errno == ENOENT) {
    return names;
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(descriptor.valid() ? fdopendir(descriptor.get()) : nullptr,
                                                   closedir);
  if (stream == nullptr) {
    throw_file_error(directory, "what is in it cannot be listed", errno);
  }
  descriptor.release();  // the stream's now
  errno = 0;
  while (const dirent* entry = readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
    errno = 0;
  }
  if (errno != 0) {
    throw_file_error(directory, "what is in it cannot be listed", errno);
  }
  return names;
}

bool is_real_directory(const fs::path& path) {
  struct stat status {};
  return lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

void remove_tree(const fs::path& path) {
  const bool directory = is_real_directory(path);
  if (directory) {
    for (const std::string& name : names_in(path)) {
      remove_tree(path / name);
    }
  }
  if ((directory ? rmdir(path.c_str()) : unlink(path.c_str())) != 0 && errno != ENOENT) {
    throw_file_error(path, "cannot be removed", errno);
  }
}

void remove_stale_staging(const fs::path& directory) {
  for (const std::string& name : names_in(directory)) {
    const std::optional<std::int64_t> process = staging_process(name);
    if (process && !runs(*process)) {
      remove_tree(directory / name);
    }
  }
}

std::optional<DirectoryLock> DirectoryLock::take(const fs::path& directory) {
  Descriptor descriptor(directory, O_RDONLY | O_DIRECTORY);
  if (!descriptor.valid()) {
    throw_file_error(directory, "cannot be opened", errno);
  }
  if (flock(descriptor.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return std::nullopt;
  }
  return DirectoryLock(descriptor.release());
}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

DirectoryLock::~DirectoryLock() {
  if (descriptor_ >= 0) {
    close(descriptor_);
  }
}

}  // namespace caravan

#include "caravan/checkpoint/step_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>

#include "caravan/base/directory.h"
#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "caravan/checkpoint/xxh3.h"

namespace caravan::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStepPrefix = "step-";
constexpr std::string_view kSavingPrefix = ".saving-step-";
constexpr std::string_view kReplacedPrefix = ".replaced-step-";
constexpr std::string_view kRemovingPrefix = ".removing-step-";
constexpr std::int64_t kMaxManifestBytes = std::int64_t{64} << 20;

[[noreturn]] void fail(const fs::path& path, std::string_view what, int code) {
  throw FileError(fmt::format("{}: {}: {}", path.string(), what, std::generic_category().message(code)));
}

fs::path named(const fs::path& folder, std::string_view prefix, std::int64_t step) {
  return folder / fmt::format("{}{}", prefix, step);
}

// The step of a name as step_directory() and its like write it: "step-007" is none.
std::optional<std::int64_t> step_of(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) {
    return std::nullopt;
  }
  const std::string_view digits = name.substr(prefix.size());
  std::int64_t step = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || step < 0 || digits != std::to_string(step)) {
    return std::nullopt;
  }
  return step;
}

// Steps of the directories (not links) with that prefix.
std::vector<std::int64_t> steps_named(const fs::path& folder, std::string_view prefix) {
  std::vector<std::int64_t> steps;
  for (const std::string& name : names_in(folder)) {
    const std::optional<std::int64_t> step = step_of(name, prefix);
    if (step && is_real_directory(folder / name)) {
      steps.push_back(*step);
    }
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void rename_directory(const fs::path& from, const fs::path& to) {
  if (rename(from.c_str(), to.c_str()) != 0) {
    fail(to, fmt::format("\"{}\" cannot be renamed to it", from.filename().string()), errno);
  }
}

// Three renames where the file system knows no exchange.  clean_leftovers() puts back what a crash leaves in between.
void exchange_by_renames(const fs::path& staged, const fs::path& target, const fs::path& aside) {
  remove_tree(aside);  // stale, since the target is there
  rename_directory(target, aside);
  try {
    rename_directory(staged, target);
  } catch (const FileError&) {
    rename_directory(aside, target);
    throw;
  }
  rename_directory(aside, staged);
}

}  // namespace

fs::path step_directory(const fs::path& folder, std::int64_t step) {
  return named(folder, kStepPrefix, step);
}

fs::path saving_directory(const fs::path& folder, std::int64_t step) {
  return named(folder, kSavingPrefix, step);
}

std::string complete_text(const std::string& manifest) {
  return xxh3_hex(manifest) + "\n";
}

std::string read_vouched_manifest(const fs::path& directory) {
  std::error_code error;
  if (!fs::exists(directory / kCompleteFile, error) && !error) {
    throw FileError(
        fmt::format("{}: has no {}: a save that was cut off, and no checkpoint", directory.string(), kCompleteFile));
  }
  const std::string complete = read_text_file(directory / kCompleteFile, 4096);
  const std::string manifest = read_text_file(directory / kManifestFile, kMaxManifestBytes);
  if (complete != complete_text(manifest)) {
    throw FormatError(fmt::format("{}: {} does not fit {}: one of them is damaged or of another checkpoint",
                                  directory.string(), kCompleteFile, kManifestFile));
  }
  return manifest;
}

std::vector<std::int64_t> step_directories(const fs::path& folder) {
  return steps_named(folder, kStepPrefix);
}

std::vector<std::int64_t> complete_steps(const fs::path& folder) {
  std::vector<std::int64_t> steps = step_directories(folder);
  std::erase_if(steps, [&folder](std::int64_t step) {
    try {
      read_vouched_manifest(step_directory(folder, step));
      return false;
    } catch (const FileError&) {
    } catch (const FormatError&) {
    }
    return true;
  });
  return steps;
}

void make_directory(const fs::path& directory) {
  if (mkdir(directory.c_str(), 0777) != 0) {
    fail(directory, "cannot be made", errno);
  }
}

void sync_directory(const fs::path& directory) {
  const int descriptor = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    fail(directory, "cannot be opened", errno);
  }
  int result = 0;
  do {
    result = fsync(descriptor);
  } while (result != 0 && errno == EINTR);
  const int code = errno;
  close(descriptor);
  if (result != 0 && code != EINVAL) {  // some file systems know no fsync of directories
    fail(directory, "the names in it could not be made durable", code);
  }
}

bool step_exists(const fs::path& folder, std::int64_t step) {
  const fs::path target = step_directory(folder, step);
  struct stat status {};
  if (lstat(target.c_str(), &status) != 0) {
    if (errno != ENOENT) {
      fail(target, "cannot be looked at", errno);
    }
    return false;
  }
  if (!S_ISDIR(status.st_mode)) {
    throw FileError(
        fmt::format("{}: is no directory, and a checkpoint is to have this name; move it away", target.string()));
  }
  return true;
}

void place_step(const fs::path& folder, std::int64_t step) {
  rename_directory(saving_directory(folder, step), step_directory(folder, step));
}

void exchange_step(const fs::path& folder, std::int64_t step) {
  const fs::path staged = saving_directory(folder, step);
  const fs::path target = step_directory(folder, step);
  if (renameat2(AT_FDCWD, staged.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) != 0) {
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) {
      fail(target, "cannot be replaced by the new checkpoint", errno);
    }
    exchange_by_renames(staged, target, named(folder, kReplacedPrefix, step));
  }
}

void remove_step(const fs::path& folder, std::int64_t step) {
  const fs::path removing = named(folder, kRemovingPrefix, step);
  remove_tree(removing);  // of an earlier attempt that failed
  rename_directory(step_directory(folder, step), removing);
  sync_directory(folder);
  const fs::path complete = removing / kCompleteFile;
  if (unlink(complete.c_str()) != 0 && errno != ENOENT) {
    fail(complete, "cannot be removed", errno);
  }
  remove_tree(removing);
}

void clean_leftovers(const fs::path& folder) {
  for (const std::int64_t step : steps_named(folder, kReplacedPrefix)) {
    const fs::path aside = named(folder, kReplacedPrefix, step);
    if (step_exists(folder, step)) {
      remove_tree(aside);
    } else {
      rename_directory(aside, step_directory(folder, step));
    }
  }
  for (const std::string_view prefix : {kSavingPrefix, kRemovingPrefix}) {
    for (const std::int64_t step : steps_named(folder, prefix)) {
      remove_tree(named(folder, prefix, step));
    }
  }
}

}  // namespace caravan::checkpoint

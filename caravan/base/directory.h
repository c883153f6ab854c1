// Listing and clearing directories where memory may run out: the standard library's iterators and remove_all end the
// process then (libstdc++ 12 allocates in functions that must not throw).  Inside the house only.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace caravan {

// What is in a directory, in no order; nothing when it is missing.  Throws FileError.
std::vector<std::string> names_in(const std::filesystem::path& directory);

// Whether the path is a directory, and no link to one.
bool is_real_directory(const std::filesystem::path& path);

// Everything below it too; links are removed, not followed.  What is not there is no error.  Throws FileError.
void remove_tree(const std::filesystem::path& path);

// Removes from a directory what AtomicFile and AtomicDirectory (file.h) of processes that were killed left there, known
// by name: ".NAME.PROCESS.NUMBER.partial".  What a running process of this machine stages stays; this process's own
// goes, so call it before anything is staged there.  A missing directory is no error.  Throws FileError.
void remove_stale_staging(const std::filesystem::path& directory);

// Keeps a directory for one holder, in this process or another, as long as the object lives; it goes with the process,
// however that ends.
class DirectoryLock {
 public:
  // Nothing where somebody else holds it.  On a file system without locks everybody does: there the user must take care.
  // Throws FileError when the directory cannot be opened.
  static std::optional<DirectoryLock> take(const std::filesystem::path& directory);
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace caravan

// Listing and clearing directories where memory may run out: the standard library's iterators and remove_all end the
// process then (libstdc++ 12 allocates in functions that must not throw).  Inside the house only.
#pragma once

#include <filesystem>
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

}  // namespace caravan

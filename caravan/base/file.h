// Files as Caravan reads and writes them: mapped when read, atomic when written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace caravan {

// A whole file mapped read-only.  The mapping lives as long as the last copy of the object.
class MappedFile {
 public:
  // Throws FileError when the path is missing, is a directory or cannot be mapped.  An empty file maps to no bytes.
  static MappedFile open(const std::filesystem::path& path);

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  // Keeps the mapping alive on behalf of a view into it.
  std::shared_ptr<const void> owner() const { return owner_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
};

// The file's text.  Throws FileError when it cannot be read, FormatError when it is longer than `max_bytes`.
std::string read_text_file(const std::filesystem::path& path, std::int64_t max_bytes);

// A file that appears whole or not at all.  Bytes go to a hidden neighbour; commit() fsyncs it, renames it over the
// target and fsyncs the directory.  Without commit() the neighbour is removed and the target is as it was.
class AtomicFile {
 public:
  // `expected_bytes` is asked of the file system before the first byte is written.
  // Throws FileError when the directory is missing or not writable, or has less free space than that.
  explicit AtomicFile(const std::filesystem::path& target, std::int64_t expected_bytes = 0);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Appends.  Throws FileError (naming target and offset) when the system refuses.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  std::int64_t bytes_written() const { return written_; }
  // Where the bytes lie until commit(); what was written can be read there.
  const std::filesystem::path& staged_path() const { return staged_; }

  // Throws FileError; the target is then as it was, unless the message says that only its directory could not be made
  // durable.
  void commit();

 private:
  void discard() noexcept;

  std::filesystem::path target_;
  std::filesystem::path staged_;
  int descriptor_ = -1;
  std::int64_t written_ = 0;
};

// Writes `text` through AtomicFile.
void write_text_file(const std::filesystem::path& target, std::string_view text);

// A directory that appears whole or not at all, for results of several files.  Files are written below path() by any
// means; commit() fsyncs them and their directory and renames it to the target.  An existing target is replaced only
// when `replace` was asked for (exchanged atomically where the file system can, and then removed).
class AtomicDirectory {
 public:
  // `expected_bytes` is asked of the file system before anything is written.
  // Throws FileError when the target exists and `replace` is false, when the parent is missing or not writable, or when
  // free space is short.
  AtomicDirectory(const std::filesystem::path& target, bool replace, std::int64_t expected_bytes);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  const std::filesystem::path& path() const { return staged_; }
  // Throws FileError; the target is then as it was, unless the message says that it is in place and what was left to do
  // (making its directory durable, removing its former content) failed.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path staged_;
  bool replace_;
  bool committed_ = false;
};

// Free bytes for this user on the file system that holds `path` (which need not exist; its nearest existing parent
// counts).
std::int64_t free_space(const std::filesystem::path& path);

}  // namespace caravan

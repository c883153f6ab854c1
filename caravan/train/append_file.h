// A file that grows by whole records: a crash leaves at most the last one unfinished; inside train only.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace caravan::train {

class AppendFile {
 public:
  // Opens at the end, creating the file; `fresh` refuses one that exists already.  Throws FileError.
  explicit AppendFile(const std::filesystem::path& path, bool fresh = false);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // One write(2).  When the system takes only a part (a full disk) the part is cut off again and FileError thrown; the
  // record is kept and goes before the next one.
  void append(std::string_view record);
  // Writes what was kept.  Throws FileError.
  void retry();
  // Makes durable what was appended.  Throws FileError.
  void sync();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::string kept_;  // records that the system has not taken
};

}  // namespace caravan::train

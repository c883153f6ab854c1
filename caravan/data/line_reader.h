// Lines and whole texts out of a byte source, within limits; what is damaged is named with file and line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "caravan/data/byte_source.h"

namespace caravan::data {

inline constexpr std::int64_t kMaxLineBytes = std::int64_t{256} << 20;
inline constexpr std::int64_t kMaxTextBytes = std::int64_t{4} << 30;

class LineReader {
 public:
  explicit LineReader(const std::filesystem::path& path, std::int64_t max_line_bytes = kMaxLineBytes);
  LineReader(std::unique_ptr<ByteSource> source, const std::filesystem::path& name, std::int64_t max_line_bytes);

  // The next line, without its end ("\n" or "\r\n"); false at the end of the file.
  // Throws FormatError (file, line) when the stream is damaged or the line longer than the limit.
  bool next(std::string& line);
  std::int64_t line_number() const { return line_number_; }  // of the last line, from 1
  std::string place() const;                                 // "data/a.jsonl.gz:17", of the last line
  std::int64_t consumed() const { return source_->consumed(); }

 private:
  bool fill();

  std::unique_ptr<ByteSource> source_;
  std::string name_;
  std::int64_t max_line_bytes_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;  // of what is not yet given out
  std::size_t end_ = 0;
  std::int64_t line_number_ = 0;
};

// The content of a file, unpacked.  Throws FileError, FormatError (file, line).
std::string read_text(const std::filesystem::path& path, std::int64_t max_bytes = kMaxTextBytes);

// The beginning of a file's content, at most `bytes` of it; less where the stream is damaged.
std::string read_head(const std::filesystem::path& path, std::size_t bytes);

}  // namespace caravan::data

#include "caravan/data/line_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan::data {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{256} << 10;

}  // namespace

LineReader::LineReader(const std::filesystem::path& path, std::int64_t max_line_bytes)
    : LineReader(ByteSource::open(path), path, max_line_bytes) {}

LineReader::LineReader(std::unique_ptr<ByteSource> source, const std::filesystem::path& name,
                       std::int64_t max_line_bytes)
    : source_(std::move(source)), name_(name.string()), max_line_bytes_(max_line_bytes), buffer_(kBufferBytes) {}

std::string LineReader::place() const {
  return fmt::format("{}:{}", name_, line_number_);
}

bool LineReader::fill() {
  try {
    begin_ = 0;
    end_ = source_->read(buffer_);
  } catch (const DamagedStream& damage) {
    throw FormatError(fmt::format("{}: {}", place(), damage.what()));
  }
  return end_ > 0;
}

bool LineReader::next(std::string& line) {
  line.clear();
  ++line_number_;
  for (;;) {
    if (begin_ == end_ && !fill()) {
      if (line.empty()) {
        --line_number_;
        return false;
      }
      break;
    }
    const char* const rest = buffer_.data() + begin_;
    const void* const newline = std::memchr(rest, '\n', end_ - begin_);
    const std::size_t count = newline != nullptr ? static_cast<const char*>(newline) - rest : end_ - begin_;
    if (static_cast<std::int64_t>(line.size() + count) > max_line_bytes_) {
      throw FormatError(fmt::format("{}: the line is longer than {} bytes, the most that is read; cut the document",
                                    place(), grouped(max_line_bytes_)));
    }
    line.append(rest, count);
    begin_ += count;
    if (newline != nullptr) {
      ++begin_;
      break;
    }
  }
  if (line.ends_with('\r')) {
    line.pop_back();
  }
  return true;
}

std::string read_text(const std::filesystem::path& path, std::int64_t max_bytes) {
  const std::unique_ptr<ByteSource> source = ByteSource::open(path);
  std::string text;
  std::vector<char> buffer(kBufferBytes);
  for (;;) {
    std::size_t count = 0;
    try {
      count = source->read(buffer);
    } catch (const DamagedStream& damage) {
      throw FormatError(fmt::format("{}:{}: {}", path.string(), std::ranges::count(text, '\n') + 1, damage.what()));
    }
    if (count == 0) {
      return text;
    }
    if (static_cast<std::int64_t>(text.size() + count) > max_bytes) {
      throw FormatError(
          fmt::format("{}: the text is longer than {} bytes, the most that one document may have; cut it "
                      "into several files, or write one document a line as JSONL",
                      path.string(), grouped(max_bytes)));
    }
    text.append(buffer.data(), count);
  }
}

std::string read_head(const std::filesystem::path& path, std::size_t bytes) {
  const std::unique_ptr<ByteSource> source = ByteSource::open(path);
  std::string head(bytes, '\0');
  std::size_t used = 0;
  try {
    while (used < bytes) {
      const std::size_t count = source->read(std::span(head).subspan(used));
      if (count == 0) {
        break;
      }
      used += count;
    }
  } catch (const DamagedStream&) {
    // Who reads on will come to the damage, and knows the line then.
  }
  head.resize(used);
  return head;
}

}  // namespace caravan::data

// Any bytes as a data file, plain or packed: lines that are documents, or a FormatError or InputError, nothing else.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "caravan/base/error.h"
#include "caravan/data/byte_source.h"
#include "caravan/data/jsonl.h"
#include "caravan/data/line_reader.h"

namespace {

constexpr std::int64_t kMaxLine = 1 << 20;

void read_line(const std::string& line, const std::string& place) {
  try {
    for (const std::int32_t id : caravan::data::jsonl_ids(line, place)) {
      if (id < 0) {
        std::abort();
      }
    }
  } catch (const caravan::FormatError&) {
  } catch (const caravan::InputError&) {
  }
  try {
    caravan::data::jsonl_text(line, place);
  } catch (const caravan::FormatError&) {
  }
  try {
    caravan::data::jsonl_kind(line, place);
  } catch (const caravan::FormatError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A heap copy of exact size: a step beyond it is seen.
  const std::unique_ptr<std::byte[]> copy(new std::byte[size]);
  if (size > 0) {
    std::memcpy(copy.get(), data, size);
  }
  try {
    caravan::data::LineReader reader(caravan::data::ByteSource::over({copy.get(), size}, "x"), "x", kMaxLine);
    std::int64_t bytes = 0;
    // A bomb may hold many lines; the limits of a line are tested, not patience.
    for (std::string line; bytes < 4 * kMaxLine && reader.next(line);) {
      if (static_cast<std::int64_t>(line.size()) > kMaxLine || line.find('\n') != std::string::npos) {
        std::abort();
      }
      bytes += static_cast<std::int64_t>(line.size()) + 1;
      if (line.size() < 4096) {
        read_line(line, reader.place());
      }
    }
  } catch (const caravan::FormatError&) {
  }
  return 0;
}

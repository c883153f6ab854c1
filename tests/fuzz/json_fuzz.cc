// Any bytes as JSON: a document or a FormatError, nothing else.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/base/json.h"

namespace {

// True when the text was accepted.
bool parse(std::string_view text, const caravan::JsonLimits& limits) {
  try {
    const caravan::Json json = caravan::parse_json(text, "x.json", limits);
    // What was understood can be said again, and is understood the same way.
    if (caravan::parse_json(json.dump(), "again", limits) != json) {
      std::abort();
    }
    return true;
  } catch (const caravan::FormatError&) {
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A heap copy of exact size: a step beyond it is seen.
  const std::unique_ptr<char[]> copy(new char[size]);
  if (size > 0) {
    std::memcpy(copy.get(), data, size);
  }
  const std::string_view text(copy.get(), size);
  const bool accepted = parse(text, {});
  // Limits only ever take away.
  if (parse(text, {.max_bytes = 2000, .max_depth = 5, .max_values = 40}) && !accepted) {
    std::abort();
  }
  return 0;
}

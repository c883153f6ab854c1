// JSON from strangers: nlohmann's parser behind limits, with errors that name the place.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace caravan {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  std::int64_t max_bytes = std::int64_t{64} << 20;
  int max_depth = 64;
  std::int64_t max_values = 16'000'000;  // scalars, objects and arrays together
};

// The document in `text`; objects keep their order.  `source` (a file name) opens every message.
// Throws FormatError naming the byte (counted from 1; of a key its last one) when the text is not one JSON document in
// UTF-8, when a key stands twice in an object, or when a limit is passed.
Json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits = {});

}  // namespace caravan

// Text to ids, as this room sees a tokenizer: everything but encoder.cc is written, and tested, without the real one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::data {

struct Encoder {
  std::function<std::vector<std::int32_t>(std::string_view text)> encode;  // from several threads at once
  std::string fingerprint;
  std::int64_t vocab_size = 0;
};

}  // namespace caravan::data

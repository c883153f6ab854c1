// The files of tests/golden/tokenizers.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "caravan/base/json.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::tokenizer {

using Ids = std::vector<std::int32_t>;

inline const std::string kGoldenFolder = test::source_folder().string() + "/tests/golden/tokenizers/";

inline std::string golden_text(const std::string& name) {
  return test::read_file(kGoldenFolder + name);
}

inline Json golden(const std::string& name) {
  return parse_json(golden_text(name), name);
}

inline std::vector<Json> golden_list(const std::string& name) {
  return golden(name).get<std::vector<Json>>();
}

// All ids through a StreamDecoder, which shows special tokens.
inline std::string streamed(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder stream(tokenizer, /*skip_special=*/false);
  std::string text;
  for (const std::int32_t id : ids) {
    text += stream.push(id);
  }
  return text + stream.finish();
}

}  // namespace caravan::tokenizer

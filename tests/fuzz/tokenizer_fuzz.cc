// Any bytes as a tokenizer.json with a text behind it, parted by a byte 0xFF: a tokenizer whose ids decode, or one of
// the errors that the header names.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/fuzz/use_tokenizer.h"

using caravan::tokenizer::Tokenizer;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = std::min(all.find('\xFF'), all.size());
  // Heap copies of exact size: a step beyond them is seen.
  const std::string json(all.substr(0, cut));
  const std::string text(all.substr(std::min(cut + 1, all.size())));
  for (const char* config : {R"({"bos_token": "<s>"})", ""}) {
    try {
      caravan::tokenizer::use(Tokenizer::parse(json, "x.json", config), text);
    } catch (const caravan::Error&) {
    }
  }
  return 0;
}

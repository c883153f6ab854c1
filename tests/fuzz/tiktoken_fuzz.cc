// Any bytes as lines of a tiktoken file, with the 256 bytes before them where the first byte is a '+' and a text behind a
// line "--": a tokenizer whose ids decode, or one of the errors that the header names.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/fuzz/use_tokenizer.h"

using caravan::tokenizer::Tokenizer;

namespace {

// Ranks 0 to 255 in base64: lines that the fuzzer should not have to find.
std::string every_byte() {
  constexpr const char* kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string lines;
  for (int byte = 0; byte < 256; ++byte) {
    lines += {kLetters[byte >> 2], kLetters[(byte & 3) << 4], '=', '=', ' '};
    lines += std::to_string(byte) + "\n";
  }
  return lines;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  constexpr std::string_view kCut = "\n--\n";
  const std::size_t cut = std::min(all.find(kCut), all.size());
  const std::string text(all.substr(std::min(cut + kCut.size(), all.size())));
  std::string file(all.substr(0, cut));
  if (file.starts_with('+')) {
    file = every_byte() + file.substr(1);
  }
  const char* kConfig = R"({"added_tokens_decoder": {"258": {"content": "<s>", "special": true}}, "bos_token": "<s>"})";
  for (const char* config : {"", kConfig}) {
    try {
      caravan::tokenizer::use(Tokenizer::parse(file, "tokenizer.model", config), text);
    } catch (const caravan::Error&) {
    }
  }
  return 0;
}

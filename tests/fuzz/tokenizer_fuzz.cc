// Any bytes as a tokenizer.json with a text behind it, parted by a byte 0xFF: a tokenizer whose ids decode, or one of
// the errors that the header names.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/tokenizer/tokenizer.h"

namespace {

using caravan::tokenizer::StreamDecoder;
using caravan::tokenizer::Tokenizer;

void check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void use(const Tokenizer& tokenizer, const std::string& text) {
  for (const bool plain : {false, true}) {
    const std::vector<std::int32_t> ids = tokenizer.encode(text, {.add_special = !plain, .plain = plain});
    for (const std::int32_t id : ids) {
      check(id >= 0 && id < tokenizer.vocab_size());
    }
    const std::string decoded = tokenizer.decode(ids);
    StreamDecoder stream(tokenizer, /*skip_special=*/false);
    std::string streamed;
    for (const std::int32_t id : ids) {
      streamed += stream.push(id);
    }
    check(streamed + stream.finish() == decoded);
    // What was decoded is UTF-8, whatever the ids were.
    tokenizer.encode(decoded);
  }
  tokenizer.encode_document(text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = std::min(all.find('\xFF'), all.size());
  // Heap copies of exact size: a step beyond them is seen.
  const std::string json(all.substr(0, cut));
  const std::string text(all.substr(std::min(cut + 1, all.size())));
  try {
    use(Tokenizer::parse(json, "x.json", R"({"bos_token": "<s>"})"), text);
  } catch (const caravan::Error&) {
  }
  try {
    use(Tokenizer::parse(json, "x.json"), text);
  } catch (const caravan::Error&) {
  }
  return 0;
}

// Any bytes as a text of so many bytes as the first says, and a SentencePiece model behind it: a tokenizer whose ids
// decode, or one of the errors that the header names.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/tokenizer/parts.h"
#include "caravan/tokenizer/sentencepiece.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/fuzz/use_tokenizer.h"

using caravan::tokenizer::Tokenizer;

namespace {

// The pieces as a GGUF file has them, and the tokenizer.json that they become: where it can be written it can be read.
void use_as_parts(std::string_view model, const std::string& text) {
  using namespace caravan::tokenizer;  // NOLINT(google-build-using-namespace)
  TokenizerParts parts;
  parts.model = "llama";
  std::string json;
  try {
    parts.vocabulary = read_sentencepiece(model, "x").pieces;
    use(Tokenizer::assemble(parts, "x"), text);
    json = to_tokenizer_json(parts, "x");
  } catch (const caravan::Error&) {
    return;
  }
  Tokenizer::parse(json, "x.json");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = std::min<std::size_t>(std::size_t{1} + data[0], size);
  const std::string text(all.substr(1, cut - 1));
  // A heap copy of exact size: a step beyond it is seen.
  const std::size_t left = size - cut;
  const std::unique_ptr<char[]> copy(new char[left]);
  std::memcpy(copy.get(), data + cut, left);
  const std::string_view model(copy.get(), left);
  for (const char* config :
       {"", R"({"bos_token": "<s>", "pad_token": "<new>", "legacy": true, "add_eos_token": true})"}) {
    try {
      caravan::tokenizer::use(Tokenizer::parse(model, "tokenizer.model", config), text);
    } catch (const caravan::Error&) {
    }
  }
  use_as_parts(model, text);
  return 0;
}

// What must hold of any tokenizer that was accepted, and of any text.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "caravan/tokenizer/tokenizer.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

inline void check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

inline bool is_utf8(const std::string& text) {
  return !first_invalid_byte(text);
}

inline void use(const Tokenizer& tokenizer, const std::string& text) {
  for (const bool plain : {false, true}) {
    const std::vector<std::int32_t> ids = tokenizer.encode(text, {.add_special = !plain, .plain = plain});
    StreamDecoder stream(tokenizer, /*skip_special=*/false);
    std::string streamed;
    for (const std::int32_t id : ids) {
      check(id >= 0 && id < tokenizer.vocab_size());
      tokenizer.bytes(id);
      const std::string more = stream.push(id);
      check(is_utf8(more));
      streamed += more;
    }
    streamed += stream.finish();
    const std::string decoded = tokenizer.decode(ids);
    check(is_utf8(decoded) && is_utf8(streamed));
    // A run of bytes that spells no text is where the two may differ.
    check(streamed == decoded || decoded.find(kReplacementCharacter) != std::string::npos);
    // What was decoded is UTF-8, whatever the ids were.
    tokenizer.encode(decoded);
    tokenizer.decode(ids, /*skip_special=*/true);
  }
  tokenizer.encode_document(text);
}

}  // namespace caravan::tokenizer

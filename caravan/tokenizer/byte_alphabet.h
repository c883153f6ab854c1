// How GPT-2 writes bytes in its vocabulary: the 188 printable bytes of Latin-1 as themselves, the other 68, in order,
// as U+0100, U+0101, ... (bytes_to_unicode of OpenAI's encoder.py, 2019).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace caravan::tokenizer {

// The character that stands for a byte.
char32_t character_of(unsigned char byte);

// The bytes that a token's spelling stands for, or nothing when it holds a character that stands for none.
// The spelling must be UTF-8.
std::optional<std::string> spelled_bytes(std::string_view spelling);

// The other way.
std::string spelling_of(std::string_view bytes);

}  // namespace caravan::tokenizer

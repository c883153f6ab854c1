// UTF-8, byte by byte.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caravan::tokenizer {

struct CodePoint {
  char32_t value = 0;
  std::size_t length = 0;  // bytes
};

// The character at `at`.  The text must be UTF-8 and `at` the first byte of a character.
inline CodePoint code_point_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) {
    return {first, 1};
  }
  if (first < 0xE0) {
    return {static_cast<char32_t>((first & 0x1F) << 6 | (byte(1) & 0x3F)), 2};
  }
  if (first < 0xF0) {
    return {static_cast<char32_t>((first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F)), 3};
  }
  return {
      static_cast<char32_t>((first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F)),
      4};
}

// The last character before `at`, which must not be 0.
CodePoint code_point_before(std::string_view text, std::size_t at);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// The bytes of the character at `at`, or 0 when what stands there is none or is cut short.
std::size_t character_length_at(std::string_view text, std::size_t at);

// Appends one character; it must be a Unicode scalar value.
void append_utf8(std::string& text, char32_t character);

// The offset of the first byte that belongs to no character, or nothing when all of `text` is UTF-8.
std::optional<std::size_t> first_invalid_byte(std::string_view text);

// Throws InputError, naming the offset, when `text` is not UTF-8.
void require_utf8(std::string_view text);

// `bytes` with U+FFFD for every longest piece that begins a character and does not end it, and for every other byte
// that belongs to none (Unicode 15, section 3.9, "U+FFFD substitution of maximal subparts"; Rust's from_utf8_lossy).
std::string lossy_utf8(std::string_view bytes);

// `bytes` with U+FFFD for every single byte that belongs to no character (SentencePiece).
std::string lossy_utf8_by_byte(std::string_view bytes);

// How many of the bytes can be read now: all but the beginning of a character at the end that later bytes may complete.
std::size_t certain_prefix(std::string_view bytes);

}  // namespace caravan::tokenizer

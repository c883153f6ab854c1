#include "caravan/tokenizer/utf8.h"

#include <emmintrin.h>
#include <fmt/core.h>

#include <algorithm>
#include <bit>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan::tokenizer {

namespace {

// What stands at `at`: a character of `length` bytes, or a maximal subpart of one.
struct Piece {
  std::size_t length = 1;
  bool complete = false;
  bool cut = false;  // incomplete, and only because the text ends
};

Piece piece_at(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) {
    return {.length = 1, .complete = true};
  }
  // Table 3-7 of the Unicode standard: the second byte's range depends on the first, the others' does not.
  const std::size_t expected = first >= 0xC2 && first < 0xE0 ? 2 : (first & 0xF0) == 0xE0 ? 3 : 4;
  if (first < 0xC2 || first > 0xF4) {
    return {};
  }
  unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < expected; ++i) {
    if (at + i == text.size()) {
      return {.length = i, .complete = false, .cut = true};
    }
    const auto byte = static_cast<unsigned char>(text[at + i]);
    if (byte < low || byte > high) {
      return {.length = i};
    }
    low = 0x80;
    high = 0xBF;
  }
  return {.length = expected, .complete = true};
}

// The end of the run of ASCII that begins at `at`.
std::size_t skip_ascii(std::string_view text, std::size_t at) {
  for (; at + 16 <= text.size(); at += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text.data() + at));
    if (const int high = _mm_movemask_epi8(bytes); high != 0) {
      return at + static_cast<std::size_t>(std::countr_zero(static_cast<unsigned>(high)));
    }
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) {
    ++at;
  }
  return at;
}

}  // namespace

CodePoint code_point_before(std::string_view text, std::size_t at) {
  std::size_t begin = at - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
    --begin;
  }
  return code_point_at(text, begin);
}

std::size_t character_length_at(std::string_view text, std::size_t at) {
  const Piece piece = piece_at(text, at);
  return piece.complete ? piece.length : 0;
}

void append_utf8(std::string& text, char32_t character) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xC0 | character >> 6);
    put(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    put(0xE0 | character >> 12);
    put(0x80 | (character >> 6 & 0x3F));
    put(0x80 | (character & 0x3F));
  } else {
    put(0xF0 | character >> 18);
    put(0x80 | (character >> 12 & 0x3F));
    put(0x80 | (character >> 6 & 0x3F));
    put(0x80 | (character & 0x3F));
  }
}

std::optional<std::size_t> first_invalid_byte(std::string_view text) {
  for (std::size_t at = skip_ascii(text, 0); at < text.size(); at = skip_ascii(text, at)) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    if (byte(at) >= 0xC2 && byte(at) < 0xE0 && at + 1 < text.size() && (byte(at + 1) & 0xC0) == 0x80) {
      at += 2;
      continue;
    }
    const Piece piece = piece_at(text, at);
    if (!piece.complete) {
      return at;
    }
    at += piece.length;
  }
  return std::nullopt;
}

void require_utf8(std::string_view text) {
  if (const auto offset = first_invalid_byte(text)) {
    throw InputError(fmt::format("the text is not UTF-8: byte {} (0x{:02X}) belongs to no character; convert it first",
                                 grouped(static_cast<std::int64_t>(*offset)),
                                 static_cast<unsigned char>(text[*offset])));
  }
}

std::string lossy_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  std::size_t kept = 0;
  for (std::size_t at = 0; at < bytes.size();) {
    const Piece piece = piece_at(bytes, at);
    if (!piece.complete) {
      text.append(bytes.substr(kept, at - kept)).append(kReplacementCharacter);
      kept = at + piece.length;
    }
    at += piece.length;
  }
  return text.append(bytes.substr(kept));
}

std::string lossy_utf8_by_byte(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = character_length_at(bytes, at);
    text.append(length > 0 ? bytes.substr(at, length) : kReplacementCharacter);
    at += std::max<std::size_t>(length, 1);
  }
  return text;
}

std::size_t certain_prefix(std::string_view bytes) {
  // A character has at most four bytes, so only the last three can be the beginning of one that is not complete.
  for (std::size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const std::size_t at = bytes.size() - back;
    if (const Piece piece = piece_at(bytes, at); piece.cut && piece.length == back) {
      return at;
    }
  }
  return bytes.size();
}

}  // namespace caravan::tokenizer

// What kind of character one is, as the reference's regular expressions see it, and the normal forms.
//
// `tokenizers` 0.23 matches patterns with the tables of Unicode 16 and normalises with those of Unicode 9, where a
// younger character stays as it is.  utf8proc 2.8 knows Unicode 15; small lists in unicode.cc make up for both.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace caravan::tokenizer {

enum class CharKind : std::uint8_t {
  kOther,
  kLetter,   // \p{L}
  kNumber,   // \p{N}
  kSpace,    // \s (White_Space) but for the two below
  kNewline,  // \r and \n
};

CharKind kind_of(char32_t character);

// \p{Lu} and \p{Lt}; \p{Ll}; and \p{Lm}, \p{Lo} and \p{M}, which the pattern of Llama 4 counts to both.
enum class CaseKind : std::uint8_t { kNone, kUpper, kLower, kEither };

CaseKind case_of(char32_t character);

// What the Digits pre-tokenizer calls a digit: \p{N} of Unicode 17, since it asks Rust and no regular expression.
bool is_numeric(char32_t character);

// \w of Rust's regex crate: Alphabetic, marks, decimal digits, connecting punctuation, joiners.
bool is_word_character(char32_t character);

inline bool is_space(CharKind kind) {
  return kind >= CharKind::kSpace;
}

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` must be UTF-8.
std::string normalize(NormalForm form, std::string_view text);

}  // namespace caravan::tokenizer

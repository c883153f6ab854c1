// What a tokenizer.json does to a text before it is cut: normal forms, and the Prepend and Replace of Llama 1 and 2.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/tokenizer/pattern.h"
#include "caravan/tokenizer/unicode.h"

namespace caravan::tokenizer {

struct NormalizerStep {
  enum class Kind { kForm, kPrepend, kReplace };
  Kind kind = Kind::kForm;
  NormalForm form = NormalForm::kNfc;
  std::string content;             // what Prepend puts before a text that is not empty, and Replace in a match's place
  std::string literal;             // of Replace, not empty, where there is no pattern
  std::optional<Pattern> pattern;  // of Replace
};

// `text` must be UTF-8.  Throws InputError when a pattern passes PCRE2's limits, or when the text becomes more than
// growth_limit() bytes long: steps that each make more of it are an attack.
std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text);

// How long a text may become.  The longest that Unicode's own normal forms make of a character is 18 times as long.
constexpr std::size_t growth_limit(std::size_t bytes) {
  return 64 * bytes + 4096;
}
[[noreturn]] void refuse_growth(std::size_t bytes);

// `text` with `content` in the place of every occurrence, from the left; `literal` must not be empty.  Throws InputError
// beyond `limit` bytes.
std::string replace_all(std::string_view text, std::string_view literal, std::string_view content, std::size_t limit);
std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content, std::size_t limit);

}  // namespace caravan::tokenizer

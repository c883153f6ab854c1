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

// `text` must be UTF-8.  Throws InputError when a pattern passes PCRE2's limits.
std::string normalize(const std::vector<NormalizerStep>& steps, std::string_view text);

// `text` with `content` in the place of every occurrence, from the left; `literal` must not be empty.
std::string replace_all(std::string_view text, std::string_view literal, std::string_view content);
std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content);

}  // namespace caravan::tokenizer

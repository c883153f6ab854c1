// A split pattern of a stranger, in Oniguruma's syntax as `tokenizers` reads it, run by PCRE2 with limits.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/tokenizer/split.h"

namespace caravan::tokenizer {

class Pattern {
 public:
  // Throws FormatError when it is no pattern, UnsupportedError when it holds what the two libraries read differently;
  // `source` opens the message.
  static Pattern compile(std::string_view pattern, const std::string& source);
  // The text itself.
  static Pattern literal(std::string_view text, const std::string& source);

  // The matches and what lies between them.  `text` must be UTF-8.  Thread-safe.
  // Throws InputError when the pattern needs more steps or memory than PCRE2 is given.
  std::vector<Stretch> find(std::string_view text) const;

 private:
  static Pattern make(const std::string& translated, std::string_view pattern, const std::string& source);

  std::shared_ptr<const void> code_;  // pcre2_code, and whether it was compiled to machine code
  bool jit_ = false;
  std::string text_;  // as the file has it, for messages
};

// The pattern in PCRE2's syntax with the same meaning.  Throws UnsupportedError.
std::string translate_pattern(std::string_view pattern, const std::string& source);

}  // namespace caravan::tokenizer

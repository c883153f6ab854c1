// A template's text cut into tokens, white space control applied: jinja2's lexer with trim_blocks and lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/jinja/engine.h"

namespace caravan::jinja {

struct Token {
  enum class Kind : std::uint8_t {
    kData,         // text between tags
    kOutputBegin,  // {{
    kOutputEnd,    // }}
    kBlockBegin,   // {%
    kBlockEnd,     // %}
    kName,
    kString,  // with its quotes
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  int line = 0;
  std::string_view text;  // of the template
};

// The tokens of `text`, the last of which is kEnd; they point into it.  Line ends must be '\n' alone.
// Throws FormatError with the line for what no token begins with, and for tags and brackets that do not close.
std::vector<Token> tokenize(std::string_view text, const std::string& source);

// "\r\n" and "\r" as "\n", one newline at the end dropped.
std::string normalized_lines(std::string_view text);

// What a string token says, its escapes resolved as in Python.  Throws FormatError.
std::string unescaped(const Token& token, const std::string& source);

// "SOURCE, line N: not a template: WHAT" as a FormatError.
[[noreturn]] void fail_syntax(const std::string& source, int line, const std::string& what);

}  // namespace caravan::jinja

// TOML in ASCII alone, for the parser; inside train only.
//
// toml++ 3.3 has undefined behaviour for letters from U+00A1 to U+0499 wherever it looks for white space
// (is_non_ascii_horizontal_whitespace), and its tables are destroyed recursively, so that keys of very many parts
// overflow the stack.  It is given texts that hold neither.
#pragma once

#include <string>
#include <string_view>

namespace caravan::train {

// The same TOML with letters beyond ASCII as escapes; what is in the same line behind such a text may move.
// Throws ConfigError, opened by `source` and with the place: not UTF-8, a letter beyond ASCII outside quotes, more dots
// outside quotes than any configuration needs.
std::string ascii_toml(std::string_view text, const std::string& source);

bool is_utf8(std::string_view text);

}  // namespace caravan::train

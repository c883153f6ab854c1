// Is it UTF-8?
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace caravan::data {

// The offset of the first byte that begins no well-formed character (Unicode 15, table 3-7: no surrogates, no overlong
// forms, nothing above U+10FFFF), or nothing.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);

}  // namespace caravan::data

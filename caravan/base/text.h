// Small pieces of the sentences that Caravan prints.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace caravan {

// The number with its thousands set apart: "9,437,184", "-1,024".
std::string grouped(std::int64_t number);

// Text from a stranger as it may stand in a message: control and non-ASCII bytes as "?", at most `max_bytes` bytes and
// then "...".
std::string printable(std::string_view text, std::size_t max_bytes = 200);

// The text as one word that a shell reads back: quoted where it holds special characters.
std::string shell_word(std::string_view text);

// The word of `words` with the fewest edits to `word` (Damerau-Levenshtein, adjacent swaps count once), or nothing when
// more than a third of the letters differ.
std::optional<std::string> nearest_word(const std::string& word, std::span<const std::string> words);

}  // namespace caravan

// Python's string methods on UTF-8: positions, lengths and classes are those of characters.  Text must be UTF-8.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace caravan::jinja {

// The character at `at`, which is moved behind it.
char32_t next_character(std::string_view text, std::size_t& at);
void append_character(std::string& text, char32_t character);
// The offset of the first byte that is no UTF-8, or nothing.
std::optional<std::size_t> first_invalid_byte(std::string_view text);

std::int64_t length_of(std::string_view text);  // characters
// The byte where character `index` begins; the end of the text when there are fewer.
std::size_t offset_of(std::string_view text, std::int64_t index);

bool is_space(char32_t character);      // str.isspace()
bool is_printable(char32_t character);  // str.isprintable()

enum class Side { kLeft, kRight, kBoth };
// str.strip(), lstrip, rstrip: of white space, or of the characters in `characters`.
std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> characters = {});

// The first place of `part` at or behind `from`, or npos; linear in the text whatever is looked for.
std::size_t find(std::string_view text, std::string_view part, std::size_t from = 0);
std::size_t find_last(std::string_view text, std::string_view part);

// str.split(), rsplit(): by white space without a separator; `limit` below 0 is none.  The separator must not be empty.
// Pieces are given one by one, those of split_from_right from the last to the first.
using Sink = std::function<void(std::string_view piece)>;
void split(std::string_view text, std::optional<std::string_view> separator, std::int64_t limit, const Sink& sink);
void split_from_right(std::string_view text, std::optional<std::string_view> separator, std::int64_t limit,
                      const Sink& sink);
void split_lines(std::string_view text, bool keep_ends, const Sink& sink);

// Full mappings of Unicode, the ones that change the length too.
std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title(); the filter is another

// str.isalpha() and so on: false for no character at all.
bool all_alpha(std::string_view text);
bool all_decimal(std::string_view text);
bool all_digits(std::string_view text);
bool all_alphanumeric(std::string_view text);
bool all_space(std::string_view text);
bool is_lower(std::string_view text);
bool is_upper(std::string_view text);

// One character as str.__repr__ has it between quotes of the kind `quote`.
void append_escaped(std::string& text, char32_t character, char quote);

// float() of a string, or nothing where Python would raise.
std::optional<double> parse_float(std::string_view text);

// repr() of a float: the fewest digits that give the number back.
std::string float_text(double value);

}  // namespace caravan::jinja

#include "caravan/jinja/text.h"

#include <string.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "caravan/jinja/character_tables.h"

namespace caravan::jinja {

namespace {

const utf8proc_uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const utf8proc_uint8_t*>(text.data());
}

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

utf8proc_category_t category(char32_t character) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(character));
}

template <std::size_t kCount>
bool in_ranges(const Range (&ranges)[kCount], char32_t character) {
  return std::ranges::any_of(ranges, [&](const Range& r) { return r.first <= character && character <= r.last; });
}

bool is_lower_character(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LL || in_ranges(kOtherLowercase, c);
}

bool is_upper_character(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LU || in_ranges(kOtherUppercase, c);
}

bool is_cased(char32_t c) {
  return category(c) == UTF8PROC_CATEGORY_LT || is_lower_character(c) || is_upper_character(c);
}

bool is_case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return in_ranges(kOtherCaseIgnorable, c);
  }
}

const SpecialCase* special_case(char32_t character) {
  const auto* found = std::ranges::lower_bound(kSpecialCases, character, {}, &SpecialCase::character);
  return found != std::end(kSpecialCases) && found->character == character ? found : nullptr;
}

void append_all(std::string& text, const char32_t* characters) {
  for (; *characters != 0; ++characters) {
    append_character(text, *characters);
  }
}

void append_upper(std::string& text, char32_t character) {
  if (const SpecialCase* special = special_case(character)) {
    append_all(text, special->upper);
  } else {
    append_character(text, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(character))));
  }
}

void append_title(std::string& text, char32_t character) {
  if (const SpecialCase* special = special_case(character)) {
    append_all(text, special->title);
  } else {
    append_character(text, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(character))));
  }
}

// A sigma that ends a word (Unicode 14, table 3-17, Final_Sigma): `at` is its place, `end` the byte behind it.
bool is_final_sigma(std::string_view text, std::size_t at, std::size_t end) {
  bool cased_before = false;
  while (at > 0 && !cased_before) {
    do {
      --at;
    } while (at > 0 && is_continuation(text[at]));
    std::size_t place = at;
    const char32_t character = next_character(text, place);
    if (!is_case_ignorable(character)) {
      cased_before = is_cased(character);
      break;
    }
  }
  while (cased_before && end < text.size()) {
    const char32_t character = next_character(text, end);
    if (!is_case_ignorable(character)) {
      return !is_cased(character);
    }
  }
  return cased_before;
}

// `at` and `end` enclose the character in `text`.
void append_lower(std::string& result, std::string_view text, std::size_t at, std::size_t end, char32_t character) {
  constexpr char32_t kSigma = 0x3A3;
  constexpr char32_t kFinalSigma = 0x3C2;
  constexpr char32_t kDottedI = 0x130;
  if (character == kSigma && is_final_sigma(text, at, end)) {
    append_character(result, kFinalSigma);
  } else if (character == kDottedI) {
    append_all(result, U"i\x307");
  } else {
    append_character(result, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(character))));
  }
}

template <typename Test>
bool all_of(std::string_view text, const Test& test) {
  for (std::size_t at = 0; at < text.size();) {
    if (!test(next_character(text, at))) {
      return false;
    }
  }
  return !text.empty();
}

// There is a character for which `wanted` holds, and none for which `unwanted` does.
template <typename Wanted, typename Unwanted>
bool has_only(std::string_view text, const Wanted& wanted, const Unwanted& unwanted) {
  bool found = false;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t character = next_character(text, at);
    if (category(character) == UTF8PROC_CATEGORY_LT || unwanted(character)) {
      return false;
    }
    found = found || wanted(character);
  }
  return found;
}

bool is_alpha(char32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

}  // namespace

char32_t next_character(std::string_view text, std::size_t& at) {
  utf8proc_int32_t character = -1;
  const utf8proc_ssize_t length =
      utf8proc_iterate(bytes_of(text) + at, static_cast<utf8proc_ssize_t>(text.size() - at), &character);
  at += length > 0 ? static_cast<std::size_t>(length) : 1;
  return static_cast<char32_t>(character);
}

void append_character(std::string& text, char32_t character) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

std::optional<std::size_t> first_invalid_byte(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    utf8proc_int32_t character = -1;
    const utf8proc_ssize_t length =
        utf8proc_iterate(bytes_of(text) + at, static_cast<utf8proc_ssize_t>(text.size() - at), &character);
    if (length <= 0) {
      return at;
    }
    at += static_cast<std::size_t>(length);
  }
  return std::nullopt;
}

std::int64_t length_of(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return !is_continuation(c); });
}

std::size_t offset_of(std::string_view text, std::int64_t index) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (!is_continuation(text[at]) && index-- == 0) {
      return at;
    }
  }
  return text.size();
}

bool is_space(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_printable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> characters) {
  const auto goes = [&](std::string_view one) {
    std::size_t at = 0;
    return characters ? characters->find(one) != std::string_view::npos : is_space(next_character(one, at));
  };
  while (side != Side::kRight && !text.empty()) {
    std::size_t end = 0;
    next_character(text, end);
    if (!goes(text.substr(0, end))) {
      break;
    }
    text.remove_prefix(end);
  }
  while (side != Side::kLeft && !text.empty()) {
    std::size_t begin = text.size() - 1;
    while (begin > 0 && is_continuation(text[begin])) {
      --begin;
    }
    if (!goes(text.substr(begin))) {
      break;
    }
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::size_t find(std::string_view text, std::string_view part, std::size_t from) {
  if (from > text.size()) {
    return std::string_view::npos;
  }
  if (part.empty()) {
    return from;
  }
  // glibc's is linear; std::string_view::find is not.
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? std::string_view::npos
                          : static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
}

std::size_t find_last(std::string_view text, std::string_view part) {
  const std::string backwards(text.rbegin(), text.rend());
  const std::string wanted(part.rbegin(), part.rend());
  const std::size_t found = find(backwards, wanted);
  return found == std::string_view::npos ? found : text.size() - found - part.size();
}

std::string upper(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    append_upper(result, next_character(text, at));
  }
  return result;
}

std::string lower(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t character = next_character(text, at);
    append_lower(result, text, begin, at, character);
  }
  return result;
}

std::string capitalize(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t character = next_character(text, at);
    if (begin == 0) {
      append_title(result, character);
    } else {
      append_lower(result, text, begin, at, character);
    }
  }
  return result;
}

std::string title(std::string_view text) {
  std::string result;
  bool inside = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    const char32_t character = next_character(text, at);
    if (inside) {
      append_lower(result, text, begin, at, character);
    } else {
      append_title(result, character);
    }
    inside = is_cased(character);
  }
  return result;
}

bool all_alpha(std::string_view text) {
  return all_of(text, is_alpha);
}

bool all_decimal(std::string_view text) {
  return all_of(text, [](char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; });
}

bool all_digits(std::string_view text) {
  return all_of(text, [](char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND || in_ranges(kOtherDigits, c); });
}

bool all_alphanumeric(std::string_view text) {
  return all_of(text, [](char32_t c) {
    const utf8proc_category_t kind = category(c);
    return is_alpha(c) || (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
  });
}

bool all_space(std::string_view text) {
  return all_of(text, is_space);
}

bool is_lower(std::string_view text) {
  return has_only(text, is_lower_character, is_upper_character);
}

bool is_upper(std::string_view text) {
  return has_only(text, is_upper_character, is_lower_character);
}

void append_escaped(std::string& text, char32_t c, char quote) {
  const auto escape = [&](char kind, int digits) {
    constexpr const char* kDigits = "0123456789abcdef";
    text.append({'\\', kind});
    for (int i = digits - 1; i >= 0; --i) {
      text += kDigits[c >> (4 * i) & 15];
    }
  };
  if (c == static_cast<char32_t>(quote) || c == '\\') {
    text.append({'\\', static_cast<char>(c)});
  } else if (c == '\n' || c == '\r' || c == '\t') {
    text.append({'\\', c == '\n' ? 'n' : c == '\r' ? 'r' : 't'});
  } else if (is_printable(c)) {
    append_character(text, c);
  } else if (c < 0x100) {
    escape('x', 2);
  } else if (c < 0x10000) {
    escape('u', 4);
  } else {
    escape('U', 8);
  }
}

std::optional<double> parse_float(std::string_view text) {
  std::string digits(strip(text, Side::kBoth));
  const bool underscores_fit =
      digits.find("__") == std::string::npos && !digits.starts_with('_') && !digits.ends_with('_');
  if (!underscores_fit) {
    return std::nullopt;
  }
  std::erase(digits, '_');
  const std::size_t sign = digits.starts_with('+') ? 1 : 0;  // from_chars takes none
  double number = 0.0;
  const char* const begin = digits.data() + sign;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(begin, end, number);
  const bool two_signs = sign == 1 && begin != end && *begin == '-';
  const bool hexadecimal = digits.find_first_of("xXpP(") != std::string::npos;
  if (stop != end || begin == end || two_signs || hexadecimal || error == std::errc::invalid_argument) {
    return std::nullopt;
  }
  if (error == std::errc::result_out_of_range) {
    number = digits.find("e-") == std::string::npos && digits.find("E-") == std::string::npos ? INFINITY : 0.0;
    return digits.starts_with('-') ? -number : number;
  }
  return number;
}

std::string float_text(double value) {
  if (std::isnan(value)) {
    return "nan";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-inf" : "inf";
  }
  char buffer[64];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view scientific(buffer, end);  // -d.ddde+xx
  const std::size_t e = scientific.find('e');
  int exponent = 0;
  const std::size_t sign = scientific[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(scientific.data() + sign, end, exponent);
  std::string digits;
  for (const char c : scientific.substr(0, e)) {
    if (c >= '0' && c <= '9') {
      digits += c;
    }
  }
  std::string result = scientific[0] == '-' ? "-" : "";
  constexpr int kSmallest = -4;
  constexpr int kLargest = 16;
  if (exponent < kSmallest || exponent >= kLargest) {
    result += digits.substr(0, 1);
    result += digits.size() > 1 ? "." + digits.substr(1) : "";
    const std::string power = std::to_string(std::abs(exponent));
    return result + "e" + (exponent < 0 ? "-" : "+") + (power.size() < 2 ? "0" : "") + power;
  }
  if (exponent < 0) {
    return result + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  }
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) {
    return result + digits + std::string(whole - digits.size(), '0') + ".0";
  }
  return result + digits.substr(0, whole) + "." + digits.substr(whole);
}

}  // namespace caravan::jinja

#include "caravan/tokenizer/unicode.h"

#include <fmt/core.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

#include "caravan/base/error.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

struct Range {
  char32_t first;
  char32_t last;
};

bool contains(std::span<const Range> ranges, char32_t character) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), character,
                                      [](char32_t value, const Range& range) { return value < range.first; });
  return after != ranges.begin() && character <= std::prev(after)->last;
}

// Letters and numbers of Unicode 15.1 and 16.
constexpr Range kYoungLetters[] = {{0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
                                   {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389},
                                   {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
                                   {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA},
                                   {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
                                   {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
constexpr Range kYoungNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
                                   {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};

// Of these, the ones with a case; and the marks of Unicode 15.1 and 16.
constexpr Range kYoungUpper[] = {
    {0x1C89, 0x1C89}, {0xA7CB, 0xA7CC}, {0xA7DA, 0xA7DA}, {0xA7DC, 0xA7DC}, {0x10D50, 0x10D65}};
constexpr Range kYoungLower[] = {{0x1C8A, 0x1C8A}, {0xA7CD, 0xA7CD}, {0xA7DB, 0xA7DB}, {0x10D70, 0x10D85}};
constexpr Range kYoungMarks[] = {{0x897, 0x897},     {0x10D69, 0x10D6D}, {0x10EFC, 0x10EFC}, {0x113B8, 0x113C0},
                                 {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D0},
                                 {0x113D2, 0x113D2}, {0x113E1, 0x113E2}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F},
                                 {0x1E5EE, 0x1E5EF}};
// Numbers of Unicode 17.
constexpr Range kYoungestNumbers[] = {{0x11DE0, 0x11DE9}, {0x16FF4, 0x16FF6}};

// Symbols that are Alphabetic: circled, squared and negative letters.
constexpr Range kAlphabeticSymbols[] = {{0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};

// Characters that decompose or combine, and are younger than Unicode 9.
constexpr Range kInert[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
    {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},
    {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785},
    {0x10787, 0x107B0}, {0x107B2, 0x107BA}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
    {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193D, 0x1193E},
    {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

CharKind look_up(char32_t character) {
  if (character == '\r' || character == '\n') {
    return CharKind::kNewline;
  }
  if ((character >= 0x9 && character <= 0xD) || character == 0x85) {
    return CharKind::kSpace;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(character))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharKind::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharKind::kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharKind::kSpace;
    case UTF8PROC_CATEGORY_CN:
      return contains(kYoungLetters, character)   ? CharKind::kLetter
             : contains(kYoungNumbers, character) ? CharKind::kNumber
                                                  : CharKind::kOther;
    default:
      return CharKind::kOther;
  }
}

CaseKind look_up_case(char32_t character) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(character))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
      return CaseKind::kUpper;
    case UTF8PROC_CATEGORY_LL:
      return CaseKind::kLower;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return CaseKind::kEither;
    case UTF8PROC_CATEGORY_CN:
      if (contains(kYoungUpper, character)) {
        return CaseKind::kUpper;
      }
      if (contains(kYoungLower, character)) {
        return CaseKind::kLower;
      }
      return contains(kYoungLetters, character) || contains(kYoungMarks, character) ? CaseKind::kEither
                                                                                    : CaseKind::kNone;
    default:
      return CaseKind::kNone;
  }
}

// Most text lies in the first blocks; the rest asks utf8proc.
constexpr std::size_t kTabled = 0x800;

template <auto kLookUp>
auto make_table() {
  std::array<decltype(kLookUp(0)), kTabled> table{};
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = kLookUp(static_cast<char32_t>(i));
  }
  return table;
}

const std::array<CharKind, kTabled> kTable = make_table<&look_up>();
const std::array<CaseKind, kTabled> kCaseTable = make_table<&look_up_case>();

void append_normalized(std::string& result, NormalForm form, std::string_view text) {
  if (text.empty()) {
    return;
  }
  int options = UTF8PROC_STABLE;
  options |= form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  options |= form == NormalForm::kNfkc || form == NormalForm::kNfkd ? UTF8PROC_COMPAT : 0;
  utf8proc_uint8_t* made = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &made, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
  if (size == UTF8PROC_ERROR_NOMEM) {
    throw std::bad_alloc();
  }
  if (size < 0) {
    throw InputError(fmt::format("the text cannot be normalised: {}", utf8proc_errmsg(size)));
  }
  result.append(reinterpret_cast<const char*>(made), static_cast<std::size_t>(size));
}

}  // namespace

CharKind kind_of(char32_t character) {
  return character < kTabled ? kTable[character] : look_up(character);
}

CaseKind case_of(char32_t character) {
  return character < kTabled ? kCaseTable[character] : look_up_case(character);
}

bool is_numeric(char32_t character) {
  return kind_of(character) == CharKind::kNumber || contains(kYoungestNumbers, character);
}

bool is_word_character(char32_t character) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(character))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_SO:
      return contains(kAlphabeticSymbols, character);
    case UTF8PROC_CATEGORY_CF:
      return character == 0x200C || character == 0x200D;
    case UTF8PROC_CATEGORY_CN:
      return contains(kYoungLetters, character) || contains(kYoungNumbers, character);
    default:
      return kind_of(character) == CharKind::kLetter;
  }
}

std::string normalize(NormalForm form, std::string_view text) {
  std::string result;
  result.reserve(text.size());
  // An inert character is a starter that composes with nothing: what stands on either side does not meet.
  std::size_t begin = 0;
  bool ascii = true;
  const auto flush = [&](std::size_t end) {
    if (ascii) {
      result.append(text.substr(begin, end - begin));
    } else {
      append_normalized(result, form, text.substr(begin, end - begin));
    }
    ascii = true;
  };
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint character = code_point_at(text, at);
    if (character.value >= kInert[0].first && contains(kInert, character.value)) {
      flush(at);
      result.append(text.substr(at, character.length));
      begin = at + character.length;
    } else {
      ascii = ascii && character.value < 0x80;
    }
    at += character.length;
  }
  flush(text.size());
  return result;
}

}  // namespace caravan::tokenizer

#include "caravan/tokenizer/split.h"

#include <algorithm>

#include "caravan/tokenizer/unicode.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

// A character with its kind; at the end of the text, length 0.
struct Seen {
  char32_t value = 0;
  std::size_t length = 0;
  CharKind kind = CharKind::kOther;
};

Seen look(std::string_view text, std::size_t at) {
  if (at >= text.size()) {
    return {};
  }
  const CodePoint character = code_point_at(text, at);
  return {character.value, character.length, kind_of(character.value)};
}

// The end of the run of characters of one kind that begins at `at`.
std::size_t run_end(std::string_view text, std::size_t at, CharKind kind) {
  for (Seen seen = look(text, at); seen.length > 0 && seen.kind == kind; seen = look(text, at)) {
    at += seen.length;
  }
  return at;
}

// 's|'t|'re|'ve|'m|'ll|'d after the apostrophe at `at`: the bytes of it all, or 0.  `any_case`: (?i:...), where the
// long s (U+017F) is an s too.
std::size_t contraction_length(std::string_view text, std::size_t at, bool any_case) {
  const auto letter = [&](std::size_t i) {
    const char found = at + i < text.size() ? text[at + i] : '\0';
    return any_case && found >= 'A' && found <= 'Z' ? static_cast<char>(found - 'A' + 'a') : found;
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    default:
      return any_case && text.substr(at + 1).starts_with("\u017F") ? 3 : 0;
  }
}

struct Spaces {
  std::size_t end = 0;           // of the whole run
  std::size_t last = 0;          // where its last character begins
  std::size_t newlines_end = 0;  // behind its last \r or \n; 0: it has none
};

Spaces spaces_at(std::string_view text, std::size_t at) {
  Spaces spaces;
  for (Seen seen = look(text, at); seen.length > 0 && is_space(seen.kind); seen = look(text, at)) {
    spaces.last = at;
    at += seen.length;
    if (seen.kind == CharKind::kNewline) {
      spaces.newlines_end = at;
    }
  }
  spaces.end = at;
  return spaces;
}

// Up to `most` numbers, of which the first is at `at`.
std::size_t numbers_end(std::string_view text, std::size_t at, int most) {
  for (int count = 0; count < most; ++count) {
    const Seen next = look(text, at);
    if (next.length == 0 || next.kind != CharKind::kNumber) {
      break;
    }
    at += next.length;
  }
  return at;
}

// \s+(?!\S)|\s+: before a word its last space is left to the word, unless it is the only one.
std::size_t spaces_end(std::string_view text, std::size_t at, const Spaces& spaces) {
  return spaces.end == text.size() || spaces.last == at ? spaces.end : spaces.last;
}

CaseKind case_at(std::string_view text, std::size_t at) {
  return at < text.size() ? case_of(code_point_at(text, at).value) : CaseKind::kNone;
}

// The end of the run of characters that `in` holds for, from `at`.
template <typename In>
std::size_t case_run_end(std::string_view text, std::size_t at, In in) {
  while (at < text.size()) {
    const CodePoint character = code_point_at(text, at);
    if (!in(case_of(character.value))) {
      break;
    }
    at += character.length;
  }
  return at;
}

bool is_upper(CaseKind kind) {
  return kind == CaseKind::kUpper || kind == CaseKind::kEither;
}
bool is_lower(CaseKind kind) {
  return kind == CaseKind::kLower || kind == CaseKind::kEither;
}

// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ from `at`, or 0.  The first run is greedy and gives back no
// more than the second needs: without a small letter behind it, up to the last character that is of both.
std::size_t mixed_word_end(std::string_view text, std::size_t at) {
  std::size_t last_either = 0;
  std::size_t end = at;
  while (end < text.size()) {
    const CodePoint character = code_point_at(text, end);
    const CaseKind kind = case_of(character.value);
    if (!is_upper(kind)) {
      break;
    }
    end += character.length;
    last_either = kind == CaseKind::kEither ? end : last_either;
  }
  return case_at(text, end) == CaseKind::kLower ? case_run_end(text, end, is_lower) : last_either;
}

// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]* from `at`, or 0.
std::size_t capital_word_end(std::string_view text, std::size_t at) {
  const std::size_t end = case_run_end(text, at, is_upper);
  return end == at ? 0 : case_run_end(text, end, is_lower);
}

// The word that the piece at `at` is, with the one character that may stand before it; 0 when it is none.
std::size_t o200k_word_end(std::string_view text, std::size_t at, const Seen& first) {
  const bool leads = first.kind == CharKind::kOther || first.kind == CharKind::kSpace;
  for (const auto word_end : {&mixed_word_end, &capital_word_end}) {
    std::size_t end = leads ? word_end(text, at + first.length) : 0;
    end = end > 0 ? end : word_end(text, at);
    if (end > 0) {
      return end < text.size() && text[end] == '\'' ? end + contraction_length(text, end, /*any_case=*/true) : end;
    }
  }
  return 0;
}

}  // namespace

std::size_t gpt2_piece_end(std::string_view text, std::size_t at) {
  if (text[at] == '\'') {
    if (const std::size_t length = contraction_length(text, at, /*any_case=*/false)) {
      return at + length;
    }
  }
  const std::size_t begin = text[at] == ' ' ? at + 1 : at;
  const Seen first = look(text, begin);
  if (first.length > 0 && !is_space(first.kind)) {
    return run_end(text, begin + first.length, first.kind);
  }
  return spaces_end(text, at, spaces_at(text, at));
}

std::size_t llama3_piece_end(std::string_view text, std::size_t at, int digits) {
  if (text[at] == '\'') {
    if (const std::size_t length = contraction_length(text, at, /*any_case=*/true)) {
      return at + length;
    }
  }
  const Seen first = look(text, at);
  if (first.kind == CharKind::kLetter) {
    return run_end(text, at + first.length, CharKind::kLetter);
  }
  if (first.kind == CharKind::kNumber) {
    return numbers_end(text, at, digits);
  }
  const Seen second = look(text, at + first.length);
  if (first.kind != CharKind::kNewline && second.kind == CharKind::kLetter) {
    return run_end(text, at + first.length + second.length, CharKind::kLetter);
  }
  // A space before other characters belongs to them.
  const bool leading = first.value == ' ' && second.length > 0 && second.kind == CharKind::kOther;
  if (first.kind == CharKind::kOther || leading) {
    const std::size_t end = run_end(text, at + first.length, CharKind::kOther);
    return run_end(text, end, CharKind::kNewline);
  }
  const Spaces spaces = spaces_at(text, at);
  return spaces.newlines_end > 0 ? spaces.newlines_end : spaces_end(text, at, spaces);
}

std::size_t o200k_piece_end(std::string_view text, std::size_t at) {
  const Seen first = look(text, at);
  if (const std::size_t end = o200k_word_end(text, at, first)) {
    return end;
  }
  if (first.kind == CharKind::kNumber) {
    return numbers_end(text, at, 3);
  }
  const Seen second = look(text, at + first.length);
  if (first.kind == CharKind::kOther || (first.value == ' ' && second.length > 0 && second.kind == CharKind::kOther)) {
    std::size_t end = run_end(text, at + first.length, CharKind::kOther);
    while (end < text.size() && (text[end] == '\r' || text[end] == '\n' || text[end] == '/')) {
      ++end;
    }
    return end;
  }
  const Spaces spaces = spaces_at(text, at);
  return spaces.newlines_end > 0 ? spaces.newlines_end : spaces_end(text, at, spaces);
}

std::vector<Stretch> split_pieces(std::vector<Stretch> stretches, SplitBehavior behavior) {
  std::vector<Stretch> pieces;
  pieces.reserve(stretches.size());
  // A piece takes in the stretch that follows it (or, from the back, precedes it) under the behaviour's condition.
  const auto fold = [&](auto joins) {
    bool previous = false;
    for (const Stretch& one : stretches) {
      if (!pieces.empty() && joins(one.is_match, previous)) {
        pieces.back().begin = std::min(pieces.back().begin, one.begin);
        pieces.back().end = std::max(pieces.back().end, one.end);
      } else {
        pieces.push_back(one);
      }
      previous = one.is_match;
    }
  };
  const auto match_after_gap = [](bool match, bool previous) { return match && !previous; };
  switch (behavior) {
    case SplitBehavior::kIsolated:
      pieces = std::move(stretches);
      break;
    case SplitBehavior::kRemoved:
      std::copy_if(stretches.begin(), stretches.end(), std::back_inserter(pieces),
                   [](const Stretch& one) { return !one.is_match; });
      break;
    case SplitBehavior::kContiguous:
      fold([](bool match, bool previous) { return match == previous; });
      break;
    case SplitBehavior::kMergedWithPrevious:
      fold(match_after_gap);
      break;
    case SplitBehavior::kMergedWithNext:
      std::reverse(stretches.begin(), stretches.end());
      fold(match_after_gap);
      std::reverse(pieces.begin(), pieces.end());
      break;
  }
  std::erase_if(pieces, [](const Stretch& one) { return one.begin == one.end; });
  return pieces;
}

}  // namespace caravan::tokenizer

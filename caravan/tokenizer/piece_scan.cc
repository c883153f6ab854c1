#include "caravan/tokenizer/piece_scan.h"

#include <algorithm>
#include <cstdlib>

#include "caravan/base/cpu_features.h"
#include "caravan/tokenizer/split.h"
#include "caravan/tokenizer/unicode.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {

namespace {

bool has_avx2() {
  static const bool kHas = lower_isa(detect_isa(), std::getenv("CARAVAN_MAX_ISA")) >= Isa::kAvx2;
  return kHas;
}

// Numbers and white space cut differently from their bytes (\p{N}{1,3}, the last space): they are left to the plain
// scanner, and so is the long s, which ends a contraction.
WideKind wide_kind(char32_t character) {
  switch (kind_of(character)) {
    case CharKind::kLetter:
      return character == 0x17F ? WideKind::kStop : WideKind::kLetter;
    case CharKind::kOther:
      return WideKind::kOther;
    default:
      return WideKind::kStop;
  }
}

// Digits sees those of Unicode 17.
WideKind wide_digit(char32_t character) {
  return is_numeric(character) ? WideKind::kStop : wide_kind(character);
}

// As wide_kind(); but letters of either case and marks may stand on both sides of a border between words.
WideKind wide_case(char32_t character) {
  const WideKind kind = wide_kind(character);
  switch (case_of(character)) {
    case CaseKind::kUpper:
      return kind == WideKind::kLetter ? WideKind::kUpper : WideKind::kStop;
    case CaseKind::kLower:
      return kind == WideKind::kLetter ? WideKind::kLower : WideKind::kStop;
    case CaseKind::kEither:
      return WideKind::kStop;
    default:
      return kind;
  }
}

// Digits of Unicode 17 stand alone; for the rest the text ends before the next one.
std::size_t digits_gpt2_piece_end(std::string_view text, std::size_t at) {
  const CodePoint first = code_point_at(text, at);
  if (is_numeric(first.value)) {
    return at + first.length;
  }
  // A piece of white space reads ahead to the end of it.
  std::size_t end = at;
  while (end < text.size()) {
    const CodePoint next = code_point_at(text, end);
    if (!is_space(kind_of(next.value))) {
      break;
    }
    end += next.length;
  }
  end = std::max(end, gpt2_piece_end(text, at));
  for (std::size_t i = at; i < text.size() && i <= end;) {
    const CodePoint next = code_point_at(text, i);
    if (is_numeric(next.value)) {
      return gpt2_piece_end(text.substr(0, i), at);
    }
    i += next.length;
  }
  return gpt2_piece_end(text, at);
}

}  // namespace

std::size_t plain_piece_end(ScanKind kind, std::string_view text, std::size_t at) {
  switch (kind) {
    case ScanKind::kGpt2:
      return gpt2_piece_end(text, at);
    case ScanKind::kDigitsGpt2:
      return digits_gpt2_piece_end(text, at);
    case ScanKind::kLlama3:
      return llama3_piece_end(text, at, 3);
    case ScanKind::kQwen2:
      return llama3_piece_end(text, at, 1);
    default:
      return o200k_piece_end(text, at);
  }
}

std::size_t find_piece_ends(ScanKind kind, std::string_view text, std::size_t at, std::uint32_t* ends, std::size_t room,
                            bool plain) {
  const bool fast = !plain && has_avx2();
  const auto wide = kind == ScanKind::kO200k ? &wide_case : kind == ScanKind::kDigitsGpt2 ? &wide_digit : &wide_kind;
  std::size_t count = 0;
  while (at < text.size() && count < room) {
    if (fast && room - count >= kLeastRoom) {
      const std::size_t found =
          find_piece_ends_avx2(kind, text.data(), text.size(), at, ends + count, room - count, wide);
      count += found;
      at = found > 0 ? ends[count - 1] : at;
      if (room - count < kLeastRoom) {
        break;
      }
    } else if (fast) {
      break;
    }
    at = plain_piece_end(kind, text, at);
    ends[count++] = static_cast<std::uint32_t>(at);
  }
  return count;
}

void PairCuts::keep_together(unsigned char left, unsigned char right) {
  const auto begin = [](unsigned char byte) { return byte < 0x80 ? byte : 0x80U; };
  const auto end = [](unsigned char byte) { return byte < 0x80 ? byte + 1U : 0x100U; };
  for (unsigned one = begin(left); one < end(left); ++one) {
    for (unsigned other = begin(right); other < end(right); ++other) {
      cuts_[one * 256U + other] = 0;
    }
  }
}

void PairCuts::keep_together(std::string_view token) {
  for (std::size_t i = 1; i < token.size(); ++i) {
    keep_together(static_cast<unsigned char>(token[i - 1]), static_cast<unsigned char>(token[i]));
  }
}

void PairCuts::finish() {
  keep_together(0x80, 0x80);
  for (unsigned byte = 0; byte < 0x80; ++byte) {
    const auto one = static_cast<unsigned char>(byte);
    if (!cuts(one, ' ')) {
      keep_together(one, 0x80);
    }
    if (!cuts(' ', one)) {
      keep_together(0x80, one);
    }
  }
}

std::size_t PairCuts::find_ends(std::string_view text, std::size_t at, std::uint32_t* ends, std::size_t room) const {
  std::size_t count = 0;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::size_t i = at + 1;
  for (unsigned left = byte(at); i < text.size(); ++i) {
    // Without a branch: cuts come as they like.
    const unsigned right = byte(i);
    ends[count] = static_cast<std::uint32_t>(i);
    count += cuts_[left * 256U + right];
    left = right;
    if (count == room) {
      return count;
    }
  }
  ends[count++] = static_cast<std::uint32_t>(text.size());
  return count;
}

}  // namespace caravan::tokenizer

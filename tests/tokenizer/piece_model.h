// SentencePiece models written by hand, field by field.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace caravan::tokenizer::test_model {

enum Kind { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

inline std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) {
    bytes += static_cast<char>((value & 0x7F) | 0x80);
  }
  return bytes + static_cast<char>(value);
}

inline std::string number(int field, std::uint64_t value) {
  return varint(static_cast<std::uint64_t>(field) << 3) + varint(value);
}

inline std::string bytes(int field, std::string_view value) {
  return varint((static_cast<std::uint64_t>(field) << 3) | 2) + varint(value.size()) + std::string(value);
}

inline std::string real(int field, float value) {
  std::string text(sizeof value, '\0');
  std::memcpy(text.data(), &value, sizeof value);
  return varint((static_cast<std::uint64_t>(field) << 3) | 5) + text;
}

inline std::string piece(std::string_view text, float score = 0, int kind = kNormal) {
  return bytes(1, bytes(1, text) + real(2, score) + number(3, static_cast<std::uint64_t>(kind)));
}

inline std::string trainer(int field, std::uint64_t value) {
  return bytes(2, number(field, value));
}

inline std::string normalizer(int field, std::uint64_t value) {
  return bytes(3, number(field, value));
}

inline constexpr int kModelType = 3;
inline constexpr int kByteFallback = 35;
inline constexpr int kUnigram = 1;
inline constexpr int kBpe = 2;
inline constexpr int kRemoveExtraWhitespaces = 4;

// <unk> <s> </s> and the letters a to d, with "ab" before "bc".  Spaces stay as they are.
inline std::string small_model(const std::string& more = "") {
  return piece("<unk>", 0, kUnknown) + piece("<s>", 0, kControl) + piece("</s>", 0, kControl) + piece("\u2581", -5) +
         piece("a", -6) + piece("b", -7) + piece("c", -8) + piece("d", -9) + piece("ab", -1) + piece("bc", -2) +
         piece("\u2581ab", -3) + more + trainer(kModelType, kBpe) + normalizer(kRemoveExtraWhitespaces, 0);
}

}  // namespace caravan::tokenizer::test_model

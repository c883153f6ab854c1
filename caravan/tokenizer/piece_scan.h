// The ends of many pieces at once: what the scanners of split.h find, 64 bytes a step where the processor allows it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace caravan::tokenizer {

// The pre-tokenizers that have a scanner of 64 bytes.
enum class ScanKind : std::uint8_t {
  kGpt2,
  kDigitsGpt2,  // every number alone, then GPT-2's pattern on what lies between (SmolLM, StarCoder)
  kLlama3,
  kQwen2,  // Llama 3's with one number a piece
  kO200k,
};

// The end of the piece that begins at `at`, character by character: the truth that the fast scanner has to meet.
std::size_t plain_piece_end(ScanKind kind, std::string_view text, std::size_t at);

// Writes the ends of the pieces that follow each other from `at` on, the start of a piece, and returns how many: at least
// one, at most `room`, which has to be kLeastRoom or more.  `text` must be UTF-8 and shorter than 4 GiB, `at` before its
// end.  `plain` leaves the fast scanner aside, as processors below AVX2 do.
inline constexpr std::size_t kLeastRoom = 128;
std::size_t find_piece_ends(ScanKind kind, std::string_view text, std::size_t at, std::uint32_t* ends, std::size_t room,
                            bool plain = false);

// Where text for merges over characters may be cut: between two bytes that stand in no token beside each other.  What is
// merged on either side never meets, so that the ids are those of the whole.  Bytes from 0x80 on count as one.
class PairCuts {
 public:
  // Everything is cut until a token forbids it.
  PairCuts() { cuts_.fill(1); }
  // Text that must not be cut anywhere, U+2581 written as a space.
  void keep_together(std::string_view token);
  void keep_together(unsigned char left, unsigned char right);
  // The last call: bytes from 0x80 on may be U+2581 as well, so they are cut no more than a space.
  void finish();
  bool cuts(unsigned char left, unsigned char right) const { return cuts_[left * 256U + right] != 0; }

  // Like find_piece_ends().  A stretch that is never cut is one piece however long it is.
  std::size_t find_ends(std::string_view text, std::size_t at, std::uint32_t* ends, std::size_t room) const;

 private:
  std::array<std::uint8_t, 65536> cuts_;
};

// What the fast scanner asks about characters beyond ASCII.  Values fit what it does with them.
enum class WideKind : std::uint8_t { kOther, kUpper, kLower, kLetter, kStop };

// The scanner of piece_scan_avx2.cc.  `wide` says what a character beyond ASCII is.  Writes at most `room` ends, less than
// 64 of them unused, and returns their count; 0 where the next piece is one for the plain scanner.
std::size_t find_piece_ends_avx2(ScanKind kind, const char* text, std::size_t size, std::size_t at, std::uint32_t* ends,
                                 std::size_t room, WideKind (*wide)(char32_t character));

}  // namespace caravan::tokenizer

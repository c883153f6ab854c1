// The merges of a BPE model, over bytes or over characters.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/tokenizer/merge_table.h"
#include "caravan/tokenizer/pages.h"
#include "caravan/tokenizer/piece_scan.h"
#include "caravan/tokenizer/short_merges.h"

namespace caravan::tokenizer {

// A piece of at most 15 bytes as two words: its bytes, zeros, and in the last byte their number.
struct ShortKey {
  static constexpr std::size_t kMost = 15;
  std::uint64_t low;
  std::uint64_t high;
  bool operator==(const ShortKey&) const = default;
  std::uint64_t differs(const ShortKey& other) const { return (low ^ other.low) | (high ^ other.high); }  // 0: equal
  std::size_t length() const { return high >> 56; }

  // Of `length` bytes of a text from `at` on.
  static ShortKey of(std::string_view text, std::size_t at, std::size_t length) {
    ShortKey key;
    if (text.size() - at >= sizeof key) {
      std::memcpy(&key, text.data() + at, sizeof key);
      // The first 8 bytes and the others apart, without a branch and without a shift by 64.
      const unsigned low = length < 8 ? static_cast<unsigned>(length) : 8;
      const unsigned high = static_cast<unsigned>(length) - low;
      key.low &= ~std::uint64_t{0} >> (64 - 8 * low);
      key.high &= (std::uint64_t{1} << 8 * high) - 1;
    } else {
      key = {};
      std::memcpy(&key, text.data() + at, length);
    }
    key.high |= std::uint64_t{length} << 56;
    return key;
  }
  // The two halves of a product of 128 bits, folded; the factors are random odd numbers.
  std::uint64_t hash() const {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(low ^ 0x9E3779B97F4A7C15) * (high ^ 0xD1B54A32D192ED03);
    return (static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64)) * 0xC2B2AE3D27D4EB4F;
  }
};

// Tokens of at most 15 bytes, found in one step.
class ShortTokens {
 public:
  void reserve(std::size_t count);
  void put(std::string_view token, std::int32_t id);
  void prefetch(const ShortKey& key) const {
    __builtin_prefetch(slots_ + (slots_ == nullptr ? 0 : key.hash() >> shift_));
  }
  // False: a token that is not found may be one all the same.
  bool is_complete() const { return is_complete_; }
  std::int32_t find(const ShortKey& key) const {  // -1: there is none
    for (std::size_t i = key.hash() >> shift_, steps = 0; steps < kMostSteps && slots_ != nullptr; ++i, ++steps) {
      const Slot& slot = slots_[i];
      if (slot.key == key) {
        return slot.id;
      }
      if (slot.key.high == 0) {
        break;
      }
    }
    return -1;
  }

 private:
  // A token that would stand further from its place is left out.
  static constexpr std::size_t kMostSteps = 16;
  struct Slot {
    ShortKey key;
    std::int32_t id;
  };
  Pages memory_;
  Slot* slots_ = nullptr;  // in memory_
  unsigned shift_ = 0;
  bool is_complete_ = true;
};

// Tokens by their bytes.
class TokenTable {
 public:
  // Ids may come in any order, all bytes together below 4 GiB.  `searchable`: find() gives it.
  void put(std::int32_t id, std::string_view bytes, bool searchable);
  // To be called once, after the last put().
  void index();

  std::optional<std::int32_t> find(std::string_view bytes) const;
  bool has(std::int32_t id) const;
  bool is_searchable(std::int32_t id) const {
    return has(id) && entries_[static_cast<std::size_t>(id)].searchable != 0;
  }
  std::string_view bytes(std::int32_t id) const;
  std::int64_t size() const { return static_cast<std::int64_t>(entries_.size()); }  // the largest id, plus one

 private:
  // Eight bytes, since a hostile file may name the largest id alone.
  struct Entry {
    std::uint32_t offset = 0;
    std::uint32_t length : 30 = 0;
    std::uint32_t used : 1 = 0;
    std::uint32_t searchable : 1 = 0;
  };
  std::string arena_;
  std::vector<Entry> entries_;
  std::size_t used_ = 0;
  std::vector<std::int32_t> slots_;
};

// Characters and their ids, in pages of 256.
class CharacterTable {
 public:
  // At most as many pages as there are of Unicode: 0x1100.
  void put(char32_t character, std::int32_t id);
  std::int32_t find(char32_t character) const {  // -1: it has none
    const std::size_t page = character >> 8;
    return page < pages_.size() ? ids_[pages_[page] * kPage + (character & 0xFF)] : -1;
  }

 private:
  static constexpr std::size_t kPage = 256;
  std::vector<std::uint32_t> pages_;  // of each page, its place in ids_; place 0 is an empty one
  std::vector<std::int32_t> ids_ = std::vector<std::int32_t>(kPage, -1);
};

struct BpeModel {
  // What is merged at first.
  enum class Symbols { kBytes, kCharacters };
  Symbols symbols = Symbols::kBytes;
  // kBytes: the byte's token.  kCharacters: <0x00> to <0xFF>, which stand for the bytes of a character that has no
  // token.  -1: the vocabulary has no such token.
  std::array<std::int32_t, 256> byte_ids{};
  CharacterTable characters;   // kCharacters
  bool byte_fallback = false;  // kCharacters: byte_ids are used
  std::int32_t unknown = -1;   // kCharacters: the token of a character that has none and whose bytes have none
  bool fuse_unknown = false;   // characters without a token that follow each other are one unknown
  // No token that merging can make holds U+2581 behind another character: a piece may be cut before it.
  bool cut_before_space = false;
  // kCharacters: where else a text may be cut, and nothing else of it changes; null where that is not so.
  std::shared_ptr<const PairCuts> cuts;

  MergeTable merges;
  TokenTable tokens;
  bool ignore_merges = false;  // a piece that is a token as it stands is not merged

  // To be called once, when all tokens and merges are there: makes what encode() finds both with.
  void index();

  // Appends the ids of one piece: O(n log n) whatever it holds.  A byte or character for which there is neither a token
  // nor an unknown is lost, as in `tokenizers`.
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;
  // The same for pieces of at most ShortKey::kMost bytes, together, which is faster.  A piece of more symbols than
  // ShortMerges has room for gets none: it is left to encode().
  void encode(std::span<const std::string_view> pieces, std::span<ShortMerges> merged) const;
  // What encode() merges: one id a byte or character, as far as they have one.
  void start(std::string_view piece, std::vector<std::int32_t>& symbols) const;

 private:
  std::int32_t find_word(std::string_view piece) const;  // -1: no token reads so

  ShortTokens words_;                      // of ignore_merges
  std::vector<std::uint32_t> byte_ranks_;  // kBytes, all there: of every two, by left * 256 + right
};

// U+2581, which stands for a space in SentencePiece's vocabularies.
inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

// A token with a space for every U+2581.
std::string with_plain_spaces(std::string_view token);

// Whether U+2581 stands behind another character.
bool holds_inner_space(std::string_view token);

// The end of the stretch from `at` on that BpeModel::cut_before_space lets stand alone.
std::size_t word_end(std::string_view text, std::size_t at);

}  // namespace caravan::tokenizer

// The merges of a BPE model, over bytes or over characters.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::tokenizer {

// From a pair of ids to what it merges into.  Open addressing: one cache line a look-up.
class MergeTable {
 public:
  static constexpr std::uint32_t kNoRank = 0xFFFFFFFF;
  struct Merge {
    std::uint32_t rank = kNoRank;  // the order of merges: smaller goes first
    std::int32_t id = -1;
  };

  void reserve(std::size_t count);
  // A pair that comes again takes the place of the first.
  void put(std::int32_t left, std::int32_t right, Merge merge);
  Merge find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t i = hash(key);; ++i) {
      const Slot& slot = slots_[i & mask_];
      if (slot.key == key) {
        return slot.merge;
      }
      if (slot.key == kEmpty) {
        return {};
      }
    }
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge;
  };
  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }
  static std::size_t hash(std::uint64_t key) {
    // The finaliser of MurmurHash3.
    key ^= key >> 33;
    key *= 0xFF51AFD7ED558CCD;
    key ^= key >> 33;
    return static_cast<std::size_t>(key);
  }

  std::vector<Slot> slots_ = std::vector<Slot>(2);
  std::size_t mask_ = 1;
  std::size_t count_ = 0;
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

  MergeTable merges;
  TokenTable tokens;
  bool ignore_merges = false;  // a piece that is a token as it stands is not merged

  // Appends the ids of one piece: O(n log n) whatever it holds.  A byte or character for which there is neither a token
  // nor an unknown is lost, as in `tokenizers`.
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;
  // What encode() merges: one id a byte or character, as far as they have one.
  void start(std::string_view piece, std::vector<std::int32_t>& symbols) const;
};

// U+2581, which stands for a space in SentencePiece's vocabularies.
inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

// Whether U+2581 stands behind another character.
bool holds_inner_space(std::string_view token);

// The end of the stretch from `at` on that BpeModel::cut_before_space lets stand alone.
std::size_t word_end(std::string_view text, std::size_t at);

// Pieces of one text and their ids: words come again.  Lives as long as a call, so that no thread sees another's.
class PieceCache {
 public:
  explicit PieceCache(const BpeModel& model) : model_(model) {}
  void encode(std::string_view piece, std::vector<std::int32_t>& ids);

 private:
  struct Slot {
    std::uint64_t hash = 0;
    std::uint32_t piece = 0;   // offset in pieces_
    std::uint32_t ids = 0;     // offset in ids_
    std::uint16_t length = 0;  // bytes; 0: free
    std::uint16_t count = 0;   // ids
  };
  void grow();

  const BpeModel& model_;
  std::vector<Slot> slots_;
  std::size_t used_ = 0;
  std::string pieces_;
  std::vector<std::int32_t> ids_;
};

}  // namespace caravan::tokenizer

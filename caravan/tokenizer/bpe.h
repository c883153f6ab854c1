// The merges of a byte-level BPE model.
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

struct BpeModel {
  std::array<std::int32_t, 256> byte_ids{};  // -1: the vocabulary has no such byte, and text loses it
  MergeTable merges;
  TokenTable tokens;
  bool ignore_merges = false;  // a piece that is a token as it stands is not merged

  // Appends the ids of one piece: O(n log n) whatever it holds.
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) const;
};

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

// The merges of a BPE model by their pairs.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/tokenizer/pages.h"

namespace caravan::tokenizer {

// From a pair of ids to what it merges into.  Open addressing.  A pair and its rank share eight bytes where they fit, as
// those of any vocabulary in use do: what a merge costs is the wait for memory.
class MergeTable {
 public:
  static constexpr std::uint32_t kNoRank = 0xFFFFFFFF;
  struct Merge {
    std::uint32_t rank = kNoRank;  // the order of merges: smaller goes first
    std::int32_t id = -1;
  };

  void reserve(std::size_t count) { pairs_.reserve(count); }
  // A pair that comes again takes the place of the first.  Ids are not negative.
  void put(std::int32_t left, std::int32_t right, Merge merge) { pairs_.push_back({left, right, merge}); }
  // To be called once, after the last put(); the others are for afterwards.
  void index();

  // Ids that the table has never seen, negative ones too, merge with nothing.
  Merge find(std::int32_t left, std::int32_t right) const {
    if (is_strange(left) || is_strange(right)) {
      return {};
    }
    if (packed_ == nullptr) {
      return find_wide(left, right);
    }
    const std::uint64_t below = packed(left, right) & rank_mask_;
    return {static_cast<std::uint32_t>(below) - 1, made_[below]};
  }
  // The two halves of find().
  std::uint32_t rank(std::int32_t left, std::int32_t right) const {
    if (is_strange(left) || is_strange(right)) {
      return kNoRank;
    }
    return packed_ == nullptr ? find_wide(left, right).rank
                              : static_cast<std::uint32_t>(packed(left, right) & rank_mask_) - 1;
  }
  std::int32_t made(std::int32_t left, std::int32_t right, std::uint32_t rank) const {
    return packed_ == nullptr ? find_wide(left, right).id : made_[rank + std::size_t{1}];
  }

  void prefetch_made(std::uint32_t rank) const {
    __builtin_prefetch(made_.data() + (packed_ == nullptr ? 0 : rank + std::uint32_t{1}));
  }
  // Of a pair that will be looked for soon.
  void prefetch(std::int32_t left, std::int32_t right) const {
    __builtin_prefetch(packed_ + (packed_ == nullptr ? 0 : place(pair_of(left, right))));
  }

 private:
  struct Pair {
    std::int32_t left = -1;  // of a free slot
    std::int32_t right = -1;
    Merge merge;
  };

  bool is_strange(std::int32_t id) const { return static_cast<std::uint32_t>(id) >= ids_; }
  static std::size_t hash(std::uint64_t pair) {
    pair *= 0x9E3779B97F4A7C15;
    return static_cast<std::size_t>(pair ^ pair >> 32);
  }
  std::uint64_t pair_of(std::int32_t left, std::int32_t right) const {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << id_bits_ | static_cast<std::uint32_t>(right);
  }
  std::size_t place(std::uint64_t pair) const { return hash(pair) & mask_; }

  // The slot of a pair, or a free one: 0, whose rank reads as none.
  std::uint64_t packed(std::int32_t left, std::int32_t right) const {
    const std::uint64_t pair = pair_of(left, right);
    for (std::size_t i = place(pair);; i = (i + 1) & mask_) {
      // Whether a pair is there cannot be foretold; that the first slot says it nearly always can.
      if (packed_[i] >> rank_bits_ == pair || packed_[i] == 0) [[likely]] {
        return packed_[i];
      }
    }
  }
  Merge find_wide(std::int32_t left, std::int32_t right) const;
  bool index_packed();
  void index_wide();

  std::vector<Pair> pairs_;  // until index()
  std::uint32_t ids_ = 0;    // one more than the largest in a pair
  std::size_t mask_ = 0;     // of slots, packed or wide

  Pages memory_;
  std::uint64_t* packed_ = nullptr;  // in memory_: left, right, and the rank plus one; null: they are wide
  unsigned id_bits_ = 0;
  unsigned rank_bits_ = 0;
  std::uint64_t rank_mask_ = 0;
  std::vector<std::int32_t> made_;  // by the rank plus one

  std::vector<Pair> wide_;
};

}  // namespace caravan::tokenizer

// The merges of several short pieces side by side: what each waits for from memory comes at the same time.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "caravan/tokenizer/merge_table.h"

namespace caravan::tokenizer {

// One piece of at most kMost symbols.
class ShortMerges {
 public:
  static constexpr std::size_t kMost = 16;

  // Without symbols.
  ShortMerges() { ranks_.fill(MergeTable::kNoRank); }
  void clear() {
    ranks_.fill(MergeTable::kNoRank);
    count_ = 0;
  }
  // One more symbol; `rank` is that of its merge with the one before it, if it is known.
  void push(std::int32_t symbol, std::uint32_t rank_with_previous = MergeTable::kNoRank) {
    ranks_[count_ == 0 ? 0 : count_ - 1] = count_ == 0 ? MergeTable::kNoRank : rank_with_previous;
    symbols_[count_++] = symbol;
  }
  std::span<const std::int32_t> symbols() const { return {symbols_.data(), count_}; }

  // Looks up the merges of all neighbours, for symbols that came without.
  void prefetch(const MergeTable& table) const;
  void look_up(const MergeTable& table);

  // Makes the next merge, and asks for what find() will look up.  False: there is none left.
  bool merge(const MergeTable& table);
  void find(const MergeTable& table);

 private:
  // Behind the symbols there is room to move them by a fixed number.
  std::array<std::int32_t, 2 * kMost + 2> symbols_;
  std::array<std::uint32_t, 2 * kMost + 2> ranks_;  // of the merge with the next symbol
  std::size_t count_ = 0;
  std::size_t at_ = 0;  // the last merge
};

// Merges all, some of which may be empty.
void merge_together(const MergeTable& table, std::span<ShortMerges> pieces);

}  // namespace caravan::tokenizer

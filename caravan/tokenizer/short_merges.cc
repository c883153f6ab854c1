#include "caravan/tokenizer/short_merges.h"

#include <algorithm>
#include <cstring>

namespace caravan::tokenizer {

namespace {

// Moves kMost numbers one place to the front.
template <typename Number>
void close_gap(Number* at) {
  std::array<Number, ShortMerges::kMost> moved;
  std::memcpy(moved.data(), at + 1, sizeof moved);
  std::memcpy(at, moved.data(), sizeof moved);
}

}  // namespace

void ShortMerges::prefetch(const MergeTable& table) const {
  for (std::size_t i = 0; i + 1 < count_; ++i) {
    table.prefetch(symbols_[i], symbols_[i + 1]);
  }
}

void ShortMerges::look_up(const MergeTable& table) {
  for (std::size_t i = 0; i + 1 < count_; ++i) {
    ranks_[i] = table.rank(symbols_[i], symbols_[i + 1]);
  }
}

bool ShortMerges::merge(const MergeTable& table) {
  // The smallest rank, of equal ones the leftmost: each with its place in the last four bits.  Ranks have 28.
  std::array<std::uint32_t, 4> best;
  best.fill(~std::uint32_t{0});
  for (std::uint32_t i = 0; i < kMost; i += 4) {
    for (std::uint32_t j = 0; j < 4; ++j) {
      best[j] = std::min(best[j], ranks_[i + j] << 4 | (i + j));
    }
  }
  const std::uint32_t least = std::min(std::min(best[0], best[1]), std::min(best[2], best[3]));
  if (least >= MergeTable::kNoRank << 4) {
    return false;
  }
  const std::size_t at = least & 15;
  symbols_[at] = table.made(symbols_[at], symbols_[at + 1], least >> 4);
  close_gap(symbols_.data() + at + 1);
  close_gap(ranks_.data() + at + 1);
  --count_;
  if (at + 1 < count_) {
    table.prefetch(symbols_[at], symbols_[at + 1]);
  }
  if (at > 0) {
    table.prefetch(symbols_[at - 1], symbols_[at]);
  }
  at_ = at;
  return true;
}

void ShortMerges::find(const MergeTable& table) {
  ranks_[at_] = at_ + 1 < count_ ? table.rank(symbols_[at_], symbols_[at_ + 1]) : MergeTable::kNoRank;
  if (at_ > 0) {
    ranks_[at_ - 1] = table.rank(symbols_[at_ - 1], symbols_[at_]);
    table.prefetch_made(ranks_[at_ - 1]);
  }
  table.prefetch_made(ranks_[at_]);
}

void merge_together(const MergeTable& table, std::span<ShortMerges> pieces) {
  std::array<ShortMerges*, 64> live;
  for (std::size_t from = 0; from < pieces.size(); from += live.size()) {
    std::size_t count = std::min(pieces.size() - from, live.size());
    for (std::size_t i = 0; i < count; ++i) {
      live[i] = &pieces[from + i];
    }
    while (count > 0) {
      std::size_t left = 0;
      for (std::size_t i = 0; i < count; ++i) {
        ShortMerges* piece = live[i];
        live[left] = piece;
        left += piece->merge(table) ? 1 : 0;
      }
      count = left;
      for (std::size_t i = 0; i < count; ++i) {
        live[i]->find(table);
      }
    }
  }
}

}  // namespace caravan::tokenizer

#include "caravan/tokenizer/merge_table.h"

#include <algorithm>
#include <bit>

namespace caravan::tokenizer {

namespace {

constexpr std::size_t kAhead = 16;  // slots that come from memory at a time

std::uint64_t wide_pair(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

void MergeTable::index() {
  // At most two thirds of the slots are used.
  mask_ = std::bit_ceil(pairs_.size() + pairs_.size() / 2 + 1) - 1;
  for (const Pair& pair : pairs_) {
    ids_ = std::max(ids_, static_cast<std::uint32_t>(std::max(pair.left, pair.right)) + 1);
  }
  if (!index_packed()) {
    index_wide();
  }
  pairs_ = {};
}

bool MergeTable::index_packed() {
  std::uint32_t ranks = 0;
  for (const Pair& pair : pairs_) {
    ranks = std::max(ranks, pair.merge.rank + 1);
  }
  id_bits_ = static_cast<unsigned>(std::bit_width(ids_));
  rank_bits_ = static_cast<unsigned>(std::bit_width(ranks));
  if (2 * id_bits_ + rank_bits_ > 64 || ranks / 4 > pairs_.size() + 1024) {
    return false;
  }
  // What a pair becomes has to follow from the rank.
  made_.assign(ranks + std::size_t{1}, -1);
  for (const Pair& pair : pairs_) {
    std::int32_t& made = made_[pair.merge.rank + std::size_t{1}];
    if (made >= 0 && made != pair.merge.id) {
      made_ = {};
      return false;
    }
    made = pair.merge.id;
  }
  rank_mask_ = (std::uint64_t{1} << rank_bits_) - 1;
  memory_ = zeroed_pages((mask_ + 1) * sizeof *packed_);
  packed_ = static_cast<std::uint64_t*>(memory_.get());
  const auto pair_at = [this](std::size_t i) { return pair_of(pairs_[i].left, pairs_[i].right); };
  for (std::size_t n = 0; n < pairs_.size(); ++n) {
    __builtin_prefetch(packed_ + place(pair_at(std::min(n + kAhead, pairs_.size() - 1))));
    const std::uint64_t pair = pair_at(n);
    std::size_t i = place(pair);
    while (packed_[i] != 0 && packed_[i] >> rank_bits_ != pair) {
      i = (i + 1) & mask_;
    }
    packed_[i] = pair << rank_bits_ | (pairs_[n].merge.rank + 1);
  }
  return true;
}

void MergeTable::index_wide() {
  wide_.assign(mask_ + 1, Pair{});
  for (const Pair& pair : pairs_) {
    std::size_t i = place(wide_pair(pair.left, pair.right));
    while (wide_[i].left >= 0 && (wide_[i].left != pair.left || wide_[i].right != pair.right)) {
      i = (i + 1) & mask_;
    }
    wide_[i] = pair;
  }
}

MergeTable::Merge MergeTable::find_wide(std::int32_t left, std::int32_t right) const {
  for (std::size_t i = place(wide_pair(left, right)); wide_[i].left >= 0; i = (i + 1) & mask_) {
    if (wide_[i].left == left && wide_[i].right == right) {
      return wide_[i].merge;
    }
  }
  return {};
}

}  // namespace caravan::tokenizer

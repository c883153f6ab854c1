// The merges of a long piece, in O(n log n).
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "caravan/tokenizer/bpe.h"

namespace caravan::tokenizer {

// A linked list of symbols and a heap of pairs; a pair that changed since it was put there is passed over.
//
// `offered` is told of every pair that may be merged, in the order in which they are found: (left, right, merged).
// Negative symbols are never merged.
template <typename Offered>
void merge_long(const MergeTable& table, const std::vector<std::int32_t>& start, std::vector<std::int32_t>& ids,
                Offered offered) {
  struct Symbol {
    std::int32_t id;
    std::uint32_t previous;
    std::uint32_t next;
  };
  struct Candidate {
    std::uint32_t rank;
    std::uint32_t left;
    std::int32_t id;
    bool operator<(const Candidate& other) const {  // the top of the heap: smallest rank, then leftmost
      return std::pair(rank, left) > std::pair(other.rank, other.left);
    }
  };
  constexpr std::uint32_t kNone = 0xFFFFFFFF;
  if (start.empty()) {
    return;
  }
  std::vector<Symbol> symbols(start.size());
  std::vector<Candidate> initial;
  for (std::size_t i = 0; i < start.size(); ++i) {
    const auto at = static_cast<std::uint32_t>(i);
    symbols[i] = {start[i], i == 0 ? kNone : at - 1, i + 1 == start.size() ? kNone : at + 1};
    const MergeTable::Merge merge = i + 1 < start.size() ? table.find(start[i], start[i + 1]) : MergeTable::Merge{};
    if (merge.rank != MergeTable::kNoRank) {
      initial.push_back({merge.rank, at, merge.id});
      offered(start[i], start[i + 1], merge.id);
    }
  }
  std::priority_queue<Candidate> heap(std::less<Candidate>{}, std::move(initial));
  const auto offer = [&](std::uint32_t left) {
    const std::uint32_t right = symbols[left].next;
    const MergeTable::Merge merge =
        right == kNone ? MergeTable::Merge{} : table.find(symbols[left].id, symbols[right].id);
    if (merge.rank != MergeTable::kNoRank) {
      heap.push({merge.rank, left, merge.id});
      offered(symbols[left].id, symbols[right].id, merge.id);
    }
  };
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    Symbol& left = symbols[top.left];
    if (left.id < 0 || left.next == kNone) {
      continue;
    }
    Symbol& right = symbols[left.next];
    if (table.find(left.id, right.id).id != top.id) {
      continue;
    }
    left.id = top.id;
    left.next = right.next;
    right.id = -1;
    if (left.next != kNone) {
      symbols[left.next].previous = top.left;
    }
    if (left.previous != kNone) {
      offer(left.previous);
    }
    offer(top.left);
  }
  for (std::uint32_t at = 0; at != kNone; at = symbols[at].next) {
    ids.push_back(symbols[at].id);
  }
}

}  // namespace caravan::tokenizer

// A mask as a list of ranges: the one contract of every attention kernel.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/layout/sequence_layout.h"

namespace caravan {

// Query rows [query_begin, query_end) look at key rows [key_begin, key_end), below a diagonal: query row q sees key row
// k when
//   k - key_begin <= (q - query_begin) + diagonal.
// diagonal 0 is causal self-attention; a cached prefix of n keys before the queries' own makes it n; a diagonal of at
// least the number of keys masks nothing.  Members are row indices of the query and of the key tensor.
struct AttentionRange {
  std::int64_t query_begin = 0;
  std::int64_t query_end = 0;
  std::int64_t key_begin = 0;
  std::int64_t key_end = 0;
  std::int64_t diagonal = 0;

  bool operator==(const AttentionRange&) const = default;
};

// Causal attention inside each sequence of a layout without cached tokens: one range a sequence that has rows,
// diagonal 0.  Throws ShapeError when a sequence has first_position above 0 (its keys are elsewhere).
std::vector<AttentionRange> causal_ranges(const SequenceLayout& layout);

// Causal attention inside chunks of `chunk` positions of each sequence (Llama 4's rotary layers): a query sees the keys
// whose position divided by `chunk` is its own.  Throws ShapeError when chunk < 1 or a sequence has first_position
// above 0.
std::vector<AttentionRange> chunked_ranges(const SequenceLayout& layout, std::int64_t chunk);

// Query-key pairs that the ranges let through: the causal work, for flop counts.
std::int64_t visible_pairs(const std::vector<AttentionRange>& ranges);

// What a kernel may rely on: ranges stand in order of query_begin; two ranges have the same query rows or none in
// common (ranges of the same queries stand together and are merged by log-sum-exp); nothing leaves [0, query_rows) or
// [0, key_rows); diagonals are not negative.  Throws ShapeError otherwise.
void check(const std::vector<AttentionRange>& ranges, std::int64_t query_rows, std::int64_t key_rows);

// "q[0,5) k[0,5) +0"
std::string to_string(const AttentionRange& range);

}  // namespace caravan

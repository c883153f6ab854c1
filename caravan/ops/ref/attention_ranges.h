// How the reference walks the ranges of a mask.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/layout/attention_range.h"

namespace caravan::ops::ref {

// The ranges [first, last) of the list that have the same query rows.
struct Group {
  std::size_t first;
  std::size_t last;
};

inline std::vector<Group> groups(const std::vector<AttentionRange>& ranges) {
  std::vector<Group> result;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (i == 0 || ranges[i].query_begin != ranges[i - 1].query_begin ||
        ranges[i].query_end != ranges[i - 1].query_end) {
      result.push_back({i, i});
    }
    result.back().last = i + 1;
  }
  return result;
}

// Whether query row q of the range sees its key row k.  As AttentionRange says, turned round: a diagonal that masks
// nothing may be near 2^63.
inline bool sees(const AttentionRange& range, std::int64_t q, std::int64_t k) {
  return (k - range.key_begin) - (q - range.query_begin) <= range.diagonal;
}

// Calls body(k) for every key row that query row q sees, range by range.
template <typename Body>
void for_visible_keys(const std::vector<AttentionRange>& ranges, const Group& group, std::int64_t q, const Body& body) {
  for (std::size_t i = group.first; i < group.last; ++i) {
    for (std::int64_t k = ranges[i].key_begin; k < ranges[i].key_end; ++k) {
      if (sees(ranges[i], q, k)) {
        body(k);
      }
    }
  }
}

// Calls body(q) for every query row that sees key row k, range by range.
template <typename Body>
void for_seeing_queries(const std::vector<AttentionRange>& ranges, std::int64_t k, const Body& body) {
  for (const AttentionRange& range : ranges) {
    if (k < range.key_begin || k >= range.key_end) {
      continue;
    }
    for (std::int64_t q = range.query_begin; q < range.query_end; ++q) {
      if (sees(range, q, k)) {
        body(q);
      }
    }
  }
}

}  // namespace caravan::ops::ref

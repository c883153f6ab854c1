#include "caravan/layout/attention_range.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <set>

#include "caravan/base/error.h"

namespace caravan {
namespace {

using Ranges = std::vector<AttentionRange>;
using Lengths = std::vector<std::int64_t>;

// The header's definition, pair by pair.
std::set<std::pair<std::int64_t, std::int64_t>> pairs(const Ranges& ranges) {
  std::set<std::pair<std::int64_t, std::int64_t>> result;
  for (const AttentionRange& range : ranges) {
    for (std::int64_t q = range.query_begin; q < range.query_end; ++q) {
      for (std::int64_t k = range.key_begin; k < range.key_end; ++k) {
        if (k - range.key_begin <= (q - range.query_begin) + range.diagonal) {
          EXPECT_TRUE(result.emplace(q, k).second) << "a pair is seen twice";
        }
      }
    }
  }
  return result;
}

TEST(CausalRanges, AreOneASequence) {
  const SequenceLayout layout = {.sequences = {{0, 3, 0}, {3, 0, 0}, {4, 2, 0}}, .rows = 7};
  EXPECT_EQ(causal_ranges(layout), (Ranges{{0, 3, 0, 3, 0}, {4, 6, 4, 6, 0}}));
  EXPECT_TRUE(causal_ranges({}).empty());
}

TEST(CausalRanges, LetThroughWhatCausalAttentionSees) {
  const SequenceLayout layout = pack(Lengths{4, 1, 6}, 13);
  const std::vector<std::int32_t> sequence = sequence_of_row(layout);
  std::set<std::pair<std::int64_t, std::int64_t>> expected;
  for (std::int64_t q = 0; q < layout.rows; ++q) {
    for (std::int64_t k = 0; k <= q; ++k) {
      const auto of = [&](std::int64_t row) { return sequence[static_cast<std::size_t>(row)]; };
      if (of(q) >= 0 && of(q) == of(k)) {
        expected.emplace(q, k);
      }
    }
  }
  EXPECT_EQ(pairs(causal_ranges(layout)), expected);
}

TEST(CausalRanges, RefuseCachedTokens) {
  EXPECT_THROW(causal_ranges({.sequences = {{0, 3, 1}}, .rows = 3}), ShapeError);
  EXPECT_THROW(causal_ranges({.sequences = {{0, 3, 0}}, .rows = 2}), ShapeError);
}

TEST(ChunkedRanges, LetThroughWhatChunksOfPositionsSee) {
  const SequenceLayout layout = pack(Lengths{5, 0, 1, 9}, 17);
  const std::vector<std::int32_t> sequence = sequence_of_row(layout);
  const std::vector<std::int32_t> position = positions(layout);
  for (const std::int64_t chunk : {1, 2, 3, 4, 9, 100}) {
    std::set<std::pair<std::int64_t, std::int64_t>> expected;
    for (std::size_t q = 0; q < sequence.size(); ++q) {
      for (std::size_t k = 0; k <= q; ++k) {
        if (sequence[q] >= 0 && sequence[q] == sequence[k] && position[q] / chunk == position[k] / chunk) {
          expected.emplace(q, k);
        }
      }
    }
    const Ranges ranges = chunked_ranges(layout, chunk);
    EXPECT_EQ(pairs(ranges), expected) << "chunk " << chunk;
    EXPECT_EQ(visible_pairs(ranges), static_cast<std::int64_t>(expected.size()));
    EXPECT_NO_THROW(check(ranges, layout.rows, layout.rows));
  }
}

TEST(ChunkedRanges, RefuseEmptyChunksAndCachedTokens) {
  EXPECT_THROW(chunked_ranges(pack(Lengths{3}), 0), ShapeError);
  EXPECT_THROW(chunked_ranges({.sequences = {{0, 3, 1}}, .rows = 3}, 2), ShapeError);
  EXPECT_EQ(chunked_ranges(pack(Lengths{3}), std::numeric_limits<std::int64_t>::max()), (Ranges{{0, 3, 0, 3, 0}}));
}

TEST(VisiblePairs, AreCountedOneByOne) {
  std::mt19937 random(9);
  const auto below = [&random](unsigned limit) { return static_cast<std::int64_t>(random() % limit); };
  for (int i = 0; i < 2000; ++i) {
    AttentionRange range;
    range.query_begin = below(5);
    range.query_end = range.query_begin + below(12);
    range.key_begin = below(5);
    range.key_end = range.key_begin + below(12);
    range.diagonal = below(16);
    EXPECT_EQ(visible_pairs({range}), static_cast<std::int64_t>(pairs({range}).size())) << to_string(range);
  }
  EXPECT_EQ(visible_pairs({}), 0);
  EXPECT_EQ(visible_pairs({{0, 3, 0, 3, 0}, {3, 5, 3, 5, 0}}), 6 + 3);
  EXPECT_EQ(visible_pairs({{0, 3, 0, 7, std::numeric_limits<std::int64_t>::max()}}), 21);
  EXPECT_EQ(visible_pairs({{0, 1 << 20, 0, 1 << 20, 0}}), (std::int64_t{1} << 19) * ((1 << 20) + 1));
}

TEST(CheckRanges, AcceptWhatAKernelMayRelyOn) {
  EXPECT_NO_THROW(check(Ranges{}, 0, 0));
  // The same queries twice (to be merged), then others; keys may come in any order.
  EXPECT_NO_THROW(check(Ranges{{0, 3, 5, 9, 2}, {0, 3, 0, 5, 9}, {3, 4, 0, 0, 0}, {6, 8, 0, 9, 0}}, 8, 9));
  EXPECT_NO_THROW(check(Ranges{{0, 0, 0, 0, 0}, {0, 3, 0, 3, 0}, {3, 3, 0, 0, 0}, {3, 4, 0, 1, 0}}, 4, 3));
}

TEST(CheckRanges, RefuseWhatBreaksTheRules) {
  const auto refused = [](const Ranges& ranges) { EXPECT_THROW(check(ranges, 8, 9), ShapeError); };
  refused({{-1, 3, 0, 3, 0}});
  refused({{3, 2, 0, 3, 0}});
  refused({{0, 9, 0, 3, 0}});
  refused({{0, 3, -1, 3, 0}});
  refused({{0, 3, 3, 2, 0}});
  refused({{0, 3, 0, 10, 0}});
  refused({{0, 3, 0, 3, -1}});
  refused({{3, 6, 0, 3, 0}, {0, 3, 0, 3, 0}});                   // order
  refused({{0, 3, 0, 3, 0}, {2, 5, 0, 3, 0}});                   // partial overlap
  refused({{0, 3, 0, 3, 0}, {0, 4, 0, 3, 0}});                   // same begin, other end
  refused({{0, 5, 0, 3, 0}, {2, 2, 0, 3, 0}, {3, 5, 0, 3, 0}});  // an empty range hides no overlap
}

TEST(AttentionRange, IsPrinted) {
  EXPECT_EQ(to_string(AttentionRange{0, 5, 2, 7, 3}), "q[0,5) k[2,7) +3");
}

}  // namespace
}  // namespace caravan

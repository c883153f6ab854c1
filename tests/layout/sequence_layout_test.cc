#include "caravan/layout/sequence_layout.h"

#include <gtest/gtest.h>

#include <limits>

#include "caravan/base/error.h"

namespace caravan {
namespace {

using Lengths = std::vector<std::int64_t>;
using Int32s = std::vector<std::int32_t>;

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

SequenceLayout layout(std::vector<Sequence> sequences, std::int64_t rows) {
  return {.sequences = std::move(sequences), .rows = rows};
}

TEST(Pack, PutsSequencesOneAfterTheOther) {
  EXPECT_EQ(pack(Lengths{3, 0, 2}), layout({{0, 3, 0}, {3, 0, 0}, {3, 2, 0}}, 5));
  EXPECT_EQ(pack(Lengths{3, 2}, 8), layout({{0, 3, 0}, {3, 2, 0}}, 8));
  EXPECT_EQ(pack(Lengths{}), layout({}, 0));
  EXPECT_EQ(pack(Lengths{}, 4), layout({}, 4));
}

TEST(Pack, RefusesLengthsThatDoNotFit) {
  EXPECT_THROW(pack(Lengths{3, -1}), ShapeError);
  EXPECT_THROW(pack(Lengths{3, 2}, 4), ShapeError);
  EXPECT_THROW(pack(Lengths{3, 2}, -1), ShapeError);
  EXPECT_THROW(pack(Lengths{kLargest, 2}), ShapeError);
  EXPECT_NO_THROW(pack(Lengths{3, 2}, 5));
}

TEST(CheckLayout, AcceptsPaddingAnywhere) {
  EXPECT_NO_THROW(check(layout({{1, 2, 0}, {4, 2, 9}}, 8)));
  EXPECT_NO_THROW(check(layout({}, 0)));
  EXPECT_NO_THROW(check(layout({{8, 0, 0}}, 8)));
}

TEST(CheckLayout, RefusesWhatBreaksTheRules) {
  EXPECT_THROW(check(layout({}, -1)), ShapeError);
  EXPECT_THROW(check(layout({{0, 3, 0}, {2, 3, 0}}, 8)), ShapeError);  // overlap
  EXPECT_THROW(check(layout({{4, 2, 0}, {0, 2, 0}}, 8)), ShapeError);  // order
  EXPECT_THROW(check(layout({{-1, 2, 0}}, 8)), ShapeError);
  EXPECT_THROW(check(layout({{0, -2, 0}}, 8)), ShapeError);
  EXPECT_THROW(check(layout({{0, 2, -1}}, 8)), ShapeError);
  EXPECT_THROW(check(layout({{7, 2, 0}}, 8)), ShapeError);
  EXPECT_THROW(check(layout({{9, 0, 0}}, 8)), ShapeError);
  EXPECT_THROW(check(layout({{1, kLargest, 0}}, 8)), ShapeError);
  EXPECT_THROW(check(layout({{0, 2, kLargest - 1}}, 8)), ShapeError);
}

TEST(Positions, CountFromTheFirstPositionAndMarkPadding) {
  EXPECT_EQ(positions(layout({{1, 2, 0}, {4, 3, 9}}, 8)), (Int32s{-1, 0, 1, -1, 9, 10, 11, -1}));
  EXPECT_TRUE(positions(layout({}, 0)).empty());
  EXPECT_THROW(positions(layout({{0, 1, std::int64_t{1} << 31}}, 1)), ShapeError);
  EXPECT_THROW(positions(layout({{0, 2, 0}}, 1)), ShapeError);
}

TEST(SequenceOfRow, NamesTheSequence) {
  EXPECT_EQ(sequence_of_row(layout({{1, 2, 0}, {3, 0, 0}, {4, 3, 9}}, 8)), (Int32s{-1, 0, 0, -1, 2, 2, 2, -1}));
}

TEST(CuSeqlens, GivesRowOffsets) {
  EXPECT_EQ(cu_seqlens(pack(Lengths{3, 0, 2})), (Int32s{0, 3, 3, 5}));
  EXPECT_EQ(cu_seqlens(pack(Lengths{3, 2}, 9)), (Int32s{0, 3, 5}));  // padding at the end does not show
  EXPECT_EQ(cu_seqlens(pack(Lengths{})), (Int32s{0}));
}

TEST(CuSeqlens, RefusesGaps) {
  EXPECT_THROW(cu_seqlens(layout({{0, 2, 0}, {3, 2, 0}}, 8)), ShapeError);
  EXPECT_THROW(cu_seqlens(layout({{1, 2, 0}}, 8)), ShapeError);
}

TEST(Longest, CountsCachedTokens) {
  EXPECT_EQ(longest(layout({{0, 5, 0}, {5, 1, 7}}, 6)), 8);
  EXPECT_EQ(longest(layout({}, 6)), 0);
}

}  // namespace
}  // namespace caravan

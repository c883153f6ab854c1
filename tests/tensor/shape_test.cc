#include "caravan/tensor/shape.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "caravan/base/error.h"

namespace caravan {
namespace {

constexpr std::int64_t kHuge = std::int64_t{1} << 62;

TEST(Shape, HoldsUpToFourExtents) {
  const Shape shape = {2, 3, 5, 7};
  EXPECT_EQ(shape.rank(), 4);
  EXPECT_EQ(shape.elements(), 210);
  EXPECT_EQ(shape[2], 5);
  EXPECT_EQ(to_string(shape), "[2, 3, 5, 7]");
  EXPECT_EQ(Shape({131, 32}).extents()[0], 131);
}

TEST(Shape, WithoutExtentsHasOneElement) {
  EXPECT_EQ(Shape().rank(), 0);
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_EQ(to_string(Shape()), "[]");
}

TEST(Shape, AZeroExtentMeansNoElements) {
  EXPECT_EQ(Shape({7, 0, 9}).elements(), 0);
}

TEST(Shape, EqualMeansSameRankAndExtents) {
  EXPECT_EQ(Shape({2, 3}), Shape({2, 3}));
  EXPECT_NE(Shape({2, 3}), Shape({3, 2}));
  EXPECT_NE(Shape({2, 3}), Shape({2, 3, 1}));
  EXPECT_NE(Shape(), Shape({0}));
}

TEST(Shape, RefusesWhatIsNoShape) {
  EXPECT_THROW(Shape({1, 1, 1, 1, 1}), ShapeError);
  EXPECT_THROW(Shape({2, -1}), ShapeError);
  EXPECT_THROW(Shape({0, -1}), ShapeError);
  const std::vector<std::int64_t> five(5, 1);
  EXPECT_THROW(Shape{std::span<const std::int64_t>(five)}, ShapeError);
}

TEST(Shape, RefusesProductsBeyond2To62) {
  EXPECT_EQ(Shape({kHuge}).elements(), kHuge);
  EXPECT_EQ(Shape({1 << 30, std::int64_t{1} << 32}).elements(), kHuge);
  EXPECT_THROW(Shape({kHuge + 1}), ShapeError);
  EXPECT_THROW(Shape({kHuge, 2}), ShapeError);
  EXPECT_THROW(Shape({kHuge, kHuge, kHuge, kHuge}), ShapeError);  // wraps to zero
  EXPECT_THROW(Shape({std::numeric_limits<std::int64_t>::max(), 3}), ShapeError);
  EXPECT_THROW(Shape({0, kHuge, 4}), ShapeError);  // its columns alone would overflow
}

}  // namespace
}  // namespace caravan

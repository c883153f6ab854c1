#include "caravan/generate/cache.h"

#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "tests/generate/tiny_model.h"
#include "tests/support/scratch.h"

namespace caravan::generate {
namespace {

constexpr CacheShape kShape = {.layers = 2, .columns = 3, .dtype = DType::kF32};

Tensor rows_of(ops::Context& ctx, std::int64_t rows, float first) {
  std::vector<float> values(static_cast<std::size_t>(rows * kShape.columns));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = first + static_cast<float>(i);
  }
  return to_device(*ctx.allocator, values, {rows, kShape.columns});
}

TEST(DenseCache, KeepsEverySequenceInItsOwnStretch) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  DenseCache cache(ctx, kShape, {4, 5});
  const SequenceLayout prefill{{{0, 2, 0}, {2, 3, 0}}, 5};
  cache.extend(ctx, 1, prefill, rows_of(ctx, 5, 100), rows_of(ctx, 5, 200));
  const SequenceLayout step{{{0, 1, 2}, {2, 2, 3}}, 4};  // a padding row between them
  const autograd::KvCache::View view = cache.extend(ctx, 1, step, rows_of(ctx, 4, 500), rows_of(ctx, 4, 600));
  EXPECT_EQ(view.ranges, (std::vector<AttentionRange>{{0, 1, 0, 3, 2}, {2, 4, 4, 9, 3}}));
  const std::vector<float> keys = to_floats(view.key);
  const float first_of_row[] = {100, 103, 500, -1, 106, 109, 112, 506, 509};
  for (std::size_t row = 0; row < 9; ++row) {
    if (first_of_row[row] >= 0) {
      EXPECT_EQ(keys[row * 3], first_of_row[row]) << row;
      EXPECT_EQ(to_floats(view.value)[row * 3], first_of_row[row] + 100) << row;
    }
  }
}

TEST(DenseCache, ForgetsWhatStandsBehindTheFirstNewRow) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  DenseCache cache(ctx, kShape, {4});
  cache.extend(ctx, 0, {{{0, 3, 0}}, 3}, rows_of(ctx, 3, 0), rows_of(ctx, 3, 0));
  const auto view = cache.extend(ctx, 0, {{{0, 2, 1}}, 2}, rows_of(ctx, 2, 50), rows_of(ctx, 2, 50));
  EXPECT_EQ(view.ranges, (std::vector<AttentionRange>{{0, 2, 0, 3, 1}}));
  EXPECT_EQ(to_floats(view.key)[3], 50);
}

TEST(DenseCache, RefusesRowsThatDoNotFitOrDoNotFollow) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  DenseCache cache(ctx, kShape, {4});
  const auto message = [&](const SequenceLayout& layout) {
    return test::message_of<ShapeError>(
        [&] { cache.extend(ctx, 0, layout, rows_of(ctx, layout.rows, 0), rows_of(ctx, layout.rows, 0)); });
  };
  EXPECT_NE(message({{{0, 5, 0}}, 5}), "") << "one more than there is room for";
  EXPECT_NE(message({{{0, 1, 2}}, 1}), "") << "two rows are missing before it";
  EXPECT_NE(message({{{0, 1, 0}, {1, 1, 0}}, 2}), "") << "two sequences for a cache of one";
  EXPECT_EQ(message({{{0, 4, 0}}, 4}), "");
}

TEST(DenseCache, GrowsAndKeepsWhatItHolds) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  DenseCache cache(ctx, kShape, {2, 3});
  for (int layer = 0; layer < 2; ++layer) {
    cache.extend(ctx, layer, {{{0, 2, 0}, {2, 3, 0}}, 5}, rows_of(ctx, 5, 100), rows_of(ctx, 5, 200));
  }
  cache.reserve(ctx, {4, 5});
  EXPECT_EQ(ctx.allocator->use().segments[static_cast<std::size_t>(Segment::kKvCache)].live_bytes,
            DenseCache::bytes(kShape, 9));
  for (int layer = 0; layer < 2; ++layer) {
    const auto view = cache.extend(ctx, layer, {{{0, 2, 2}, {2, 1, 3}}, 3}, rows_of(ctx, 3, 500), rows_of(ctx, 3, 600));
    EXPECT_EQ(view.ranges, (std::vector<AttentionRange>{{0, 2, 0, 4, 2}, {2, 3, 4, 8, 3}}));
    const std::vector<float> keys = to_floats(view.key);
    const float first_of_row[] = {100, 103, 500, 503, 106, 109, 112, 506};
    for (std::size_t row = 0; row < std::size(first_of_row); ++row) {
      EXPECT_EQ(keys[row * 3], first_of_row[row]) << row;
      EXPECT_EQ(to_floats(view.value)[row * 3], first_of_row[row] + 100) << row;
    }
  }
  EXPECT_THROW(cache.reserve(ctx, {4}), ShapeError);
  EXPECT_THROW(cache.reserve(ctx, {3, 9}), ShapeError) << "four rows are held of the first";
  EXPECT_THROW(cache.reserve(ctx, {4, -1}), ShapeError);
}

TEST(DenseCache, TakesTheBytesItSays) {
  for (const std::int64_t rows : {0, 1, 7, 100}) {
    ops::Context ctx = context_of(ops::Backend::kRef);
    const DenseCache cache(ctx, kShape, {rows / 2, rows - rows / 2});
    const MemoryUse use = ctx.allocator->use();
    const SegmentUse segment = use.segments[static_cast<std::size_t>(Segment::kKvCache)];
    EXPECT_EQ(segment.live_bytes, DenseCache::bytes(kShape, rows));
    EXPECT_EQ(use.live_bytes, segment.live_bytes);
    EXPECT_GE(segment.live_bytes, 2 * kShape.layers * rows * kShape.columns * 4);
  }
}

}  // namespace
}  // namespace caravan::generate

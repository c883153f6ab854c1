#include "caravan/ops/decoding.h"

#include <gtest/gtest.h>

#include <cmath>

#include "caravan/base/error.h"
#include "caravan/tensor/copy.h"
#include "tests/ops/inputs.h"

namespace caravan::ops::testing {
namespace {

Context context() {
  return make_context(
      {.backend = Backend::kRef, .dry_run = false, .threads = 1, .memory_capacity = std::int64_t{1} << 26});
}

TEST(Decoding, AppendsRowsWhereATensorSays) {
  Context ctx = context();
  const Tensor dst = from_doubles(ctx, DType::kF32, {4, 2}, {0, 0, 0, 0, 0, 0, 0, 0});
  const Tensor src = from_doubles(ctx, DType::kF32, {3, 2}, {1, 2, 3, 4, 5, 6});
  append_rows(ctx, dst, src, from_ints(ctx, {2, -1, 0}));
  EXPECT_EQ(to_doubles(dst), (std::vector<double>{5, 6, 0, 0, 1, 2, 0, 0}));
  append_rows(ctx, dst, src, from_ints(ctx, {4, 7, 3}));
  EXPECT_EQ(to_doubles(dst), (std::vector<double>{5, 6, 0, 0, 1, 2, 5, 6}));
  EXPECT_THROW(append_rows(ctx, dst, src, from_ints(ctx, {1})), ShapeError);
}

TEST(Decoding, ArgmaxIsTheFirstOfEqualsAndToldOfNoNumber) {
  Context ctx = context();
  const Tensor logits = from_doubles(ctx, DType::kF32, {4, 3},
                                     {1, 7, 7, -INFINITY, -3, -INFINITY, NAN, 9, 1, -INFINITY, -INFINITY, -INFINITY});
  const Tensor ids = from_ints(ctx, {9, 9, 9, 9});
  argmax(ctx, ids, logits);
  EXPECT_EQ(to_doubles(ids), (std::vector<double>{1, 1, -1, -1}));
}

TEST(Decoding, CountsUp) {
  Context ctx = context();
  const Tensor values = from_ints(ctx, {0, -1, 41});
  count_up(ctx, values);
  EXPECT_EQ(to_doubles(values), (std::vector<double>{1, 0, 42}));
}

TEST(Decoding, CachedAttentionSeesTheLengthsOfATensor) {
  Context ctx = context();
  const HeadShape heads{4, 2, 3};
  const Maker make{ctx, DType::kF64, DType::kF64};
  const Tensor query = make.input("query", 3, 12, 1).view;
  const Tensor key = make.input("key", 9, 6, 1).view;
  const Tensor value = make.input("value", 9, 6, 1).view;
  const Tensor out = make.output(DType::kF64, 3, 12).view;
  cached_attention(ctx, out, query, key, value, heads, from_ints(ctx, {0, 4, 6}), from_ints(ctx, {3, 0, 9}), 3, 0.5);
  const Tensor expected = make.output(DType::kF64, 3, 12).view;
  attention(ctx, expected, Tensor(), query, key, value, heads, {{0, 1, 0, 3, 3}, {2, 3, 6, 9, 3}}, 0.5);
  EXPECT_EQ(to_doubles(out), to_doubles(expected));
}

}  // namespace
}  // namespace caravan::ops::testing

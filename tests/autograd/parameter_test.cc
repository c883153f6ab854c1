#include "caravan/autograd/parameter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "caravan/base/error.h"
#include "caravan/base/philox.h"
#include "caravan/tensor/copy.h"

namespace caravan::autograd {
namespace {

ParamSpec spec_of(const std::string& name, const Shape& shape, const std::string& alias = "") {
  ParamSpec spec;
  spec.name = name;
  spec.shape = shape;
  spec.parts = {{name, shape, 0}};
  spec.alias_of = alias;
  return spec;
}

ops::Context reference(bool dry_run = false) {
  return ops::make_context(
      {.backend = ops::Backend::kRef, .dry_run = dry_run, .threads = 1, .memory_capacity = 1 << 24});
}

TEST(WeightStore, FollowsAliasesAndStoresThemOnce) {
  ops::Context ctx = reference();
  WeightStore store(ctx, {spec_of("a", {4, 8}), spec_of("b", {4, 8}, "a")}, DType::kF32);
  EXPECT_EQ(&store.at("a"), &store.at("b"));
  EXPECT_EQ(store.parameters().size(), 1U);
  EXPECT_EQ(store.specs().size(), 2U);
  EXPECT_EQ(ctx.allocator->use().segments[static_cast<std::size_t>(Segment::kWeights)].live_bytes, 4 * 8 * 4);
}

TEST(WeightStore, RefusesDoubleNamesAndDanglingAliases) {
  ops::Context ctx = reference();
  EXPECT_THROW(WeightStore(ctx, {spec_of("a", {4}), spec_of("a", {4})}, DType::kF32), ShapeError);
  EXPECT_THROW(WeightStore(ctx, {spec_of("a", {4}), spec_of("b", {4}, "c")}, DType::kF32), ShapeError);
  WeightStore store(ctx, {spec_of("a", {4})}, DType::kF32);
  EXPECT_THROW(store.at("z"), ShapeError);
  EXPECT_EQ(store.find("z"), nullptr);
}

TEST(WeightStore, SaysThatItDoesNotFit) {
  ops::Context ctx = reference();
  EXPECT_THROW(WeightStore(ctx, {spec_of("a", {1 << 20, 1 << 20})}, DType::kF32), OutOfMemoryError);
}

TEST(Initialize, KeysValuesByPartNameAndIndex) {
  ops::Context ctx = reference();
  ParamSpec fused = spec_of("fused", {6, 5});
  fused.parts = {{"x", {2, 5}, 0}, {"y", {4, 5}, 2}};
  fused.init = {InitKind::kNormal, 0.5};
  WeightStore together(ctx, {fused}, DType::kF32);
  initialize(ctx, together, 9);
  ParamSpec x = spec_of("x", {2, 5});
  ParamSpec y = spec_of("y", {4, 5});
  x.init = y.init = fused.init;
  WeightStore apart(ctx, {y, x}, DType::kF32);
  initialize(ctx, apart, 9);
  EXPECT_EQ(to_floats(part_rows(together.at("fused").tensor(), fused.parts[0])), to_floats(apart.at("x").tensor()));
  EXPECT_EQ(to_floats(part_rows(together.at("fused").tensor(), fused.parts[1])), to_floats(apart.at("y").tensor()));
  const RandomStream stream(9, "y");
  EXPECT_EQ(to_floats(apart.at("y").tensor())[7], static_cast<float>(0.5 * stream.normal(7)));
  WeightStore other_seed(ctx, {y}, DType::kF32);
  initialize(ctx, other_seed, 10);
  EXPECT_NE(to_floats(other_seed.at("y").tensor()), to_floats(apart.at("y").tensor()));
}

TEST(Initialize, FillsConstantsAndReachesBeyondOneBlock) {
  ops::Context ctx = reference();
  ParamSpec ones = spec_of("ones", {7});
  ones.init = {InitKind::kOnes, 0.0};
  ParamSpec zeros = spec_of("zeros", {7});
  zeros.init = {InitKind::kZeros, 0.0};
  ParamSpec large = spec_of("large", {3, 750'000});  // more than two blocks of values
  large.init = {InitKind::kNormal, 1.0};
  WeightStore store(ctx, {ones, zeros, large}, DType::kBF16);
  initialize(ctx, store, 1);
  EXPECT_EQ(to_floats(store.at("ones").tensor()), std::vector<float>(7, 1.0F));
  EXPECT_EQ(to_floats(store.at("zeros").tensor()), std::vector<float>(7, 0.0F));
  const std::vector<float> values = to_floats(store.at("large").tensor());
  double sum = 0.0;
  double squares = 0.0;
  for (const float value : values) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const double n = static_cast<double>(values.size());
  // Five standard errors of mean and variance of a unit normal.
  EXPECT_NEAR(sum / n, 0.0, 5.0 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1.0, 5.0 * std::sqrt(2.0 / n) + 0.004);
  EXPECT_EQ(values[2'249'999],
            static_cast<float>(BFloat16(static_cast<float>(RandomStream(1, "large").normal(2'249'999)))));
}

}  // namespace
}  // namespace caravan::autograd

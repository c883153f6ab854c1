#include "caravan/nn/layers.h"

#include <gtest/gtest.h>

#include <cmath>

#include "caravan/tensor/copy.h"

namespace caravan::nn {
namespace {

ops::Context reference() {
  return ops::make_context({.backend = ops::Backend::kRef, .dry_run = false, .threads = 1, .memory_capacity = 1 << 24});
}

Rope rope_of(RopeKind kind) {
  Rope rope;
  rope.config.kind = kind;
  rope.config.factor = 2.0;
  rope.config.factor_given = true;
  rope.config.max_position_embeddings = 4;
  rope.head_dim = 4;
  return rope;
}

TEST(Rope, CountsPositionsInsideEachSequence) {
  ops::Context ops = reference();
  SequenceLayout layout{{{1, 2, 0}, {3, 2, 5}}, 6};  // a padding row, two tokens, two tokens after five cached, padding
  autograd::Context ctx(ops, layout);
  const Rope rope = rope_of(RopeKind::kDefault);
  const std::vector<double> cos = to_doubles(rope.tables(ctx, DType::kF32).cos);
  const double expected[] = {0, 0, 1, 5, 6, 0};
  for (std::size_t row = 0; row < 6; ++row) {
    EXPECT_NEAR(cos[row * 2], std::cos(expected[row]), 1e-6) << row;
  }
}

TEST(Rope, GivesEverySequenceTheFrequenciesOfItsOwnLength) {
  ops::Context ops = reference();
  const SequenceLayout layout = pack(std::vector<std::int64_t>{3, 8});
  autograd::Context ctx(ops, layout);
  const Rope rope = rope_of(RopeKind::kDynamic);
  const std::vector<double> sin = to_doubles(rope.tables(ctx, DType::kF32).sin);
  EXPECT_NEAR(sin[2 * 2 + 1], std::sin(2.0 * rope_frequencies(rope.config, 4, 3)[1]), 1e-7);
  EXPECT_NEAR(sin[(3 + 2) * 2 + 1], std::sin(2.0 * rope_frequencies(rope.config, 4, 8)[1]), 1e-7);
  EXPECT_GT(std::abs(sin[2 * 2 + 1] - sin[(3 + 2) * 2 + 1]), 1e-3);
}

TEST(Rope, MakesItsTablesOnceAPass) {
  ops::Context ops = reference();
  const SequenceLayout layout = pack(std::vector<std::int64_t>{3});
  autograd::Context ctx(ops, layout);
  const Rope rope = rope_of(RopeKind::kDefault);
  const auto* first = &rope.tables(ctx, DType::kF32);
  const std::int64_t live = ops.allocator->use().live_bytes;
  EXPECT_EQ(&rope.tables(ctx, DType::kF32), first);
  EXPECT_EQ(ops.allocator->use().live_bytes, live);
}

TEST(Rope, RoundsTablesToTheActivationsUnlessTold) {
  ops::Context ops = reference();
  const SequenceLayout layout = pack(std::vector<std::int64_t>{3});
  const auto table = [&](RopeRounding rounding) {
    autograd::Context ctx(ops, layout);
    Rope rope = rope_of(RopeKind::kDefault);
    rope.rounding = rounding;
    return to_floats(rope.tables(ctx, DType::kBF16).cos);
  };
  const std::vector<float> rounded = table(RopeRounding::kActivation);
  const std::vector<float> kept = table(RopeRounding::kFloat32);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(rounded[i], static_cast<float>(BFloat16(kept[i])));
  }
  EXPECT_NE(rounded, kept);
}

}  // namespace
}  // namespace caravan::nn

// The oracle against values that a reader can check by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "caravan/base/error.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/embedding.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/loss_head.h"
#include "caravan/ops/rms_norm.h"
#include "caravan/ops/rope.h"
#include "caravan/ops/swiglu.h"
#include "tests/ops/inputs.h"

namespace caravan::ops::testing {
namespace {

using Doubles = std::vector<double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Room for any test of this file.
Context reference() {
  return make_context({.backend = Backend::kRef, .memory_capacity = std::int64_t{64} << 20});
}

// Within a few last bits of a double.
void expect_close(const Doubles& got, const Doubles& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], expected[i], 0x1p-48 * (1 + std::abs(expected[i]))) << "element " << i;
  }
}

TEST(RefLinear, MultipliesByTheTransposeAndAddsBiasAndResidual) {
  Context ctx = reference();
  const Tensor x = from_doubles(ctx, DType::kF64, {2, 3}, {1, 2, 3, 4, 5, 6});
  const Weight w(from_doubles(ctx, DType::kF64, {2, 3}, {1, 0, -1, 2, 1, 0}));
  const Tensor bias = from_doubles(ctx, DType::kF64, {2}, {10, 20});
  const Tensor residual = from_doubles(ctx, DType::kF64, {2, 2}, {0.5, 0.25, -1, -2});
  const Tensor y = ctx.allocate(DType::kF64, {2, 2});
  linear(ctx, y, x, w);
  EXPECT_EQ(to_doubles(y), (Doubles{-2, 4, -2, 13}));
  linear(ctx, y, x, w, bias, residual);
  EXPECT_EQ(to_doubles(y), (Doubles{8.5, 24.25, 7, 31}));
  linear(ctx, y, x, w, {}, y);
  EXPECT_EQ(to_doubles(y), (Doubles{6.5, 28.25, 5, 44}));
}

TEST(RefLinear, RoundsOnceAfterTheResidual) {
  Context ctx = reference();
  // 256 + 1 is a tie in bf16 and goes to the even 256; with the residual's 1 it is 258, which bf16 has.
  const Tensor x = from_doubles(ctx, DType::kBF16, {1, 2}, {256, 1});
  const Weight w(from_doubles(ctx, DType::kBF16, {1, 2}, {1, 1}));
  const Tensor y = ctx.allocate(DType::kBF16, {1, 1});
  linear(ctx, y, x, w);
  EXPECT_EQ(to_doubles(y), Doubles{256});
  linear(ctx, y, x, w, {}, from_doubles(ctx, DType::kBF16, {1, 1}, {1}));
  EXPECT_EQ(to_doubles(y), Doubles{258});
}

TEST(RefLinear, GivesUnroundedLogitsInF32) {
  Context ctx = reference();
  const Weight w(from_doubles(ctx, DType::kBF16, {1, 2}, {1, 1}));
  const Tensor y = ctx.allocate(DType::kF32, {1, 1});
  linear(ctx, y, from_doubles(ctx, DType::kBF16, {1, 2}, {256, 1}), w);
  EXPECT_EQ(to_doubles(y), Doubles{257});
}

TEST(RefRmsNorm, DividesByTheRootOfTheMeanSquare) {
  Context ctx = reference();
  // The mean square of 1, 7, 1, 7 is 25.
  const Tensor x = from_doubles(ctx, DType::kF64, {1, 4}, {1, 7, 1, -7});
  const Tensor w = from_doubles(ctx, DType::kF64, {4}, {1, 1, 5, 10});
  const Tensor y = ctx.allocate(DType::kF64, {1, 4});
  const Tensor rstd = ctx.allocate(DType::kF64, {1});
  rms_norm(ctx, y, rstd, x, w, 0, NormRounding::kFused);
  expect_close(to_doubles(y), {0.2, 1.4, 1, -14});
  expect_close(to_doubles(rstd), {0.2});
  rms_norm(ctx, y, rstd, x, w, 75, NormRounding::kFused);
  expect_close(to_doubles(rstd), {0.1});
}

TEST(RefRmsNorm, RoundsTwiceLikeHuggingFaceAndOnceWhenFused) {
  Context ctx = reference();
  // The mean square of 1 and 3 is 5.  1 / sqrt 5 = 228.97 / 512 is 229 / 512 in bf16, and w = 135 / 128:
  //   once    228.97 / 512 * w = 241.495 / 512 -> 241 / 512
  //   twice   229    / 512 * w = 241.523 / 512 -> 242 / 512
  const Tensor x = from_doubles(ctx, DType::kBF16, {1, 2}, {1, 3});
  const Tensor w = from_doubles(ctx, DType::kBF16, {2}, {135.0 / 128, 1});
  const Tensor y = ctx.allocate(DType::kBF16, {1, 2});
  rms_norm(ctx, y, {}, x, w, 0, NormRounding::kFused);
  EXPECT_EQ(to_doubles(y), (Doubles{241.0 / 512, 172.0 / 128}));
  rms_norm(ctx, y, {}, x, w, 0, NormRounding::kHuggingFace);
  EXPECT_EQ(to_doubles(y), (Doubles{242.0 / 512, 172.0 / 128}));
}

// One pair of tables for head_dim 4: quarter turn for the first pair, none for the second.
struct QuarterTurn {
  Tensor cos, sin;
  explicit QuarterTurn(Context& ctx)
      : cos(from_doubles(ctx, DType::kF64, {1, 2}, {0, 1})), sin(from_doubles(ctx, DType::kF64, {1, 2}, {1, 0})) {}
};

TEST(RefRope, PairsHalvesOrNeighbours) {
  Context ctx = reference();
  const QuarterTurn turn(ctx);
  const Tensor x = from_doubles(ctx, DType::kF64, {1, 4}, {1, 2, 3, 4});
  const Tensor y = ctx.allocate(DType::kF64, {1, 4});
  rope(ctx, y, x, turn.cos, turn.sin, RopePairing::kRotateHalf);
  EXPECT_EQ(to_doubles(y), (Doubles{-3, 2, 1, 4}));
  rope(ctx, y, x, turn.cos, turn.sin, RopePairing::kInterleaved);
  EXPECT_EQ(to_doubles(y), (Doubles{-2, 1, 3, 4}));
}

TEST(RefRope, InverseUndoesTheRotation) {
  Context ctx = reference();
  const Maker make{ctx, DType::kF64, DType::kF64};
  const Tensor x = make.input("x", 5, 16, 1).view;
  // Cosine and sine in the ratio 3 : 4 : 5 keep lengths.  head_dim 8, so two heads.
  const Tensor cos = from_doubles(ctx, DType::kF64, {5, 4}, Doubles(20, 0.6));
  const Tensor sin = from_doubles(ctx, DType::kF64, {5, 4}, Doubles(20, 0.8));
  for (const RopePairing pairing : {RopePairing::kRotateHalf, RopePairing::kInterleaved}) {
    const Tensor y = ctx.allocate(DType::kF64, {5, 16});
    rope(ctx, y, x, cos, sin, pairing);
    EXPECT_NE(to_doubles(y), to_doubles(x));
    rope(ctx, y, y, cos, sin, pairing, /*inverse=*/true);
    expect_close(to_doubles(y), to_doubles(x));
  }
}

TEST(RefRopeTables, TurnByThePositionTimesTheFrequencyOfTheTokensKind) {
  Context ctx = reference();
  const float third = static_cast<float>(std::numbers::pi / 3);
  const Tensor frequencies = from_doubles(ctx, DType::kF32, {2, 1}, {third, 2 * third});
  const Tensor cos = ctx.allocate(DType::kF32, {4, 1});
  const Tensor sin = ctx.allocate(DType::kF32, {4, 1});
  rope_tables(ctx, cos, sin, from_ints(ctx, {0, 1, 1, -1}), frequencies, from_ints(ctx, {0, 0, 1, 9}), 2, DType::kF32);
  const Doubles c = to_doubles(cos);
  const Doubles s = to_doubles(sin);
  // The angle is off by half an ulp of f32 at 2 (2^-23), doubled by the scaling.
  EXPECT_EQ(c[0], 2);
  EXPECT_NEAR(c[1], 1, 0x1p-21);
  EXPECT_NEAR(c[2], -1, 0x1p-21);
  EXPECT_EQ(s[0], 0);
  EXPECT_NEAR(s[1], std::sqrt(3), 0x1p-21);
  EXPECT_NEAR(s[2], std::sqrt(3), 0x1p-21);
  // Padding is not turned, nor scaled.
  EXPECT_EQ(c[3], 1);
  EXPECT_EQ(s[3], 0);
}

TEST(RefRopeTables, RoundTheAngleToF32WhateverTheTablesAre) {
  Context ctx = reference();
  const float frequency = 0.1F;
  const std::int32_t position = 99999;
  const float angle = static_cast<float>(position) * frequency;
  ASSERT_NE(static_cast<double>(angle), position * static_cast<double>(frequency));
  const Tensor frequencies = from_doubles(ctx, DType::kF32, {1, 1}, {frequency});
  for (const DType tables : {DType::kF32, DType::kF64}) {
    const Tensor cos = ctx.allocate(tables, {1, 1});
    const Tensor sin = ctx.allocate(tables, {1, 1});
    rope_tables(ctx, cos, sin, from_ints(ctx, {position}), frequencies, from_ints(ctx, {0}), 1, tables);
    EXPECT_EQ(to_doubles(cos)[0], static_cast<float>(std::cos(static_cast<double>(angle))));
    EXPECT_EQ(to_doubles(sin)[0], static_cast<float>(std::sin(static_cast<double>(angle))));
  }
}

TEST(RefRopeTables, RoundToTheActivationsDtypeAfterTheScaling) {
  Context ctx = reference();
  const Tensor frequencies = from_doubles(ctx, DType::kF32, {1, 1}, {0.5});
  const Tensor cos = ctx.allocate(DType::kF32, {1, 1});
  const Tensor sin = ctx.allocate(DType::kF32, {1, 1});
  // cos 0.5 = 0.87758: 225 / 256 in bf16 (0.87891).  1.25 cos 0.5 = 1.09698: 140 / 128 (1.09375), where 1.25 * 225 /
  // 256 = 1.09863 would go to 141 / 128.
  rope_tables(ctx, cos, sin, from_ints(ctx, {1}), frequencies, from_ints(ctx, {0}), 1, DType::kBF16);
  EXPECT_EQ(to_doubles(cos)[0], 225.0 / 256);
  rope_tables(ctx, cos, sin, from_ints(ctx, {1}), frequencies, from_ints(ctx, {0}), 1.25, DType::kBF16);
  EXPECT_EQ(to_doubles(cos)[0], 140.0 / 128);
}

// Attention in f64 with head_dim 2 and one head over `values`, all keys and queries zero unless given.
struct Attended {
  Doubles out, lse;
};

Attended attend(const Doubles& query, const Doubles& key, const Doubles& value,
                const std::vector<AttentionRange>& ranges, double scale = 1) {
  Context ctx = reference();
  const auto queries = static_cast<std::int64_t>(query.size() / 2);
  const auto keys = static_cast<std::int64_t>(key.size() / 2);
  const Tensor out = ctx.allocate(DType::kF64, {queries, 2});
  const Tensor lse = ctx.allocate(DType::kF64, {queries, 1});
  attention(ctx, out, lse, from_doubles(ctx, DType::kF64, {queries, 2}, query),
            from_doubles(ctx, DType::kF64, {keys, 2}, key), from_doubles(ctx, DType::kF64, {keys, 2}, value), {1, 1, 2},
            ranges, scale);
  return {to_doubles(out), to_doubles(lse)};
}

TEST(RefAttention, AveragesTheValuesOfEqualScores) {
  const Attended got = attend({0, 0, 0, 0, 0, 0}, {1, 2, 3, 4, 5, 6}, {3, 0, 5, 2, 10, -8}, {{0, 3, 0, 3, 0}});
  expect_close(got.out, {3, 0, 4, 1, 6, -2});
  expect_close(got.lse, {0, std::log(2), std::log(3)});
}

TEST(RefAttention, WeighsByTheExponentialOfTheScaledProduct) {
  // Scores 2 * ln 3 / 2 and 0: weights 3 / 4 and 1 / 4.
  const Attended got = attend({2, 0}, {std::log(3), 7, 0, 7}, {4, 8, 0, 4}, {{0, 1, 0, 2, 1}}, 0.5);
  expect_close(got.out, {3, 7});
  expect_close(got.lse, {std::log(4)});
}

TEST(RefAttention, SurvivesScoresBeyondTheRangeOfExp) {
  const Attended got = attend({1000, 0}, {1, 0, 1, 0, -1, 0}, {2, 4, 4, 6, 99, 99}, {{0, 1, 0, 3, 2}});
  expect_close(got.out, {3, 5});
  expect_close(got.lse, {1000 + std::log(2)});
}

TEST(RefAttention, LeavesRowsWithoutKeysZeroAndDoesNotReadWhatNoRangeCovers) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  // Row 0 is padding, row 1 sees its own key, row 2 has a range of no keys.
  const Attended got = attend({nan, nan, 0, 0, 0, 0}, {nan, nan, 1, 1, nan, nan}, {nan, nan, 5, 6, nan, nan},
                              {{1, 2, 1, 2, 0}, {2, 3, 2, 2, 0}});
  EXPECT_EQ(got.out, (Doubles{0, 0, 5, 6, 0, 0}));
  EXPECT_EQ(got.lse[1], 0);
  EXPECT_EQ(got.lse[0], -kInfinity);
  EXPECT_EQ(got.lse[2], -kInfinity);
}

TEST(RefAttention, MergesSeveralRangesOfTheSameQueries) {
  const Doubles query = {0.5, -1, 1, 0.25};
  const Doubles key = {0.1, 0.2, -0.3, 0.4, 0.5, -0.6, 0.7, 0.8};
  const Doubles value = {1, 2, 3, 4, 5, 6, 7, 8};
  const Attended whole = attend(query, key, value, {{0, 2, 0, 4, 4}});
  const Attended pieces = attend(query, key, value, {{0, 2, 3, 4, 1}, {0, 2, 0, 1, 1}, {0, 2, 1, 3, 2}});
  expect_close(pieces.out, whole.out);
  expect_close(pieces.lse, whole.lse);
}

TEST(RefAttention, MovesTheDiagonalByTheCachedPrefix) {
  // The last two rows of causal attention over four, with the first two keys in a cache.
  const Doubles query = {0.5, -1, 1, 0.25, -0.5, 2, 0.75, -1};
  const Doubles key = {0.1, 0.2, -0.3, 0.4, 0.5, -0.6, 0.7, 0.8};
  const Doubles value = {1, 2, 3, 4, 5, 6, 7, 8};
  const Attended whole = attend(query, key, value, {{0, 4, 0, 4, 0}});
  const Attended cached = attend({query.begin() + 4, query.end()}, key, value, {{0, 2, 0, 4, 2}});
  EXPECT_EQ(cached.out, (Doubles{whole.out.begin() + 4, whole.out.end()}));
}

TEST(RefAttention, SharesKeyHeadsAmongNeighbouringQueryHeads) {
  Context ctx = reference();
  // head_dim 1, one key: the output is that key head's value.
  const Tensor out = ctx.allocate(DType::kF64, {1, 6});
  attention(ctx, out, {}, from_doubles(ctx, DType::kF64, {1, 6}, Doubles(6, 1)),
            from_doubles(ctx, DType::kF64, {1, 2}, {1, 1}), from_doubles(ctx, DType::kF64, {1, 2}, {10, 20}), {6, 2, 1},
            {{0, 1, 0, 1, 0}}, 1);
  EXPECT_EQ(to_doubles(out), (Doubles{10, 10, 10, 20, 20, 20}));
}

TEST(RefSwiglu, GatesTheSecondHalfByTheSiluOfTheFirst) {
  Context ctx = reference();
  // silu(ln 3) = ln 3 / (1 + 1/3); silu(0) = 0; silu of a large number is itself, of a small one nothing.
  const Tensor gate_up = from_doubles(ctx, DType::kF64, {2, 4}, {std::log(3), 0, 4, 5, 800, -800, 0.5, 7});
  const Tensor y = ctx.allocate(DType::kF64, {2, 2});
  swiglu(ctx, y, gate_up);
  expect_close(to_doubles(y), {3 * std::log(3), 0, 400, 0});
}

TEST(RefEmbedding, CopiesRowsAndGivesPaddingZeros) {
  Context ctx = reference();
  const Tensor table = from_doubles(ctx, DType::kF16, {3, 2}, {1, 2, 3, 4, 5, 6});
  const Tensor y = ctx.allocate(DType::kF16, {4, 2});
  embedding(ctx, y, table, from_ints(ctx, {2, -1, 0, -100}));
  EXPECT_EQ(to_doubles(y), (Doubles{5, 6, 0, 0, 1, 2, 0, 0}));
}

TEST(RefLossHead, LossOfUniformLogitsIsTheLogOfTheVocabulary) {
  Context ctx = reference();
  const std::int64_t vocab = 499;
  const Tensor hidden = from_doubles(ctx, DType::kF64, {2, 3}, {1, 2, 3, -4, 5, 600});
  const Weight w(from_doubles(ctx, DType::kF64, {vocab, 3}, Doubles(static_cast<std::size_t>(3 * vocab), 1)));
  const Tensor nll = ctx.allocate(DType::kF64, {2});
  loss_head(ctx, nll, hidden, w, from_ints(ctx, {0, 498}));
  // The logits of row 1 are 601, so the difference of two numbers near 607.
  EXPECT_NEAR(to_doubles(nll)[0], std::log(499), 0x1p-48);
  EXPECT_NEAR(to_doubles(nll)[1], std::log(499), 601 * 0x1p-50);
}

TEST(RefLossHead, TakesTheTargetsOwnLogitAndSkipsIgnoredRows) {
  Context ctx = reference();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  // Logits ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8.
  const Tensor hidden = from_doubles(ctx, DType::kF64, {4, 1}, {1, 1, nan, 1});
  const Weight w(from_doubles(ctx, DType::kF64, {3, 1}, {0, std::log(2), std::log(5)}));
  const Tensor nll = ctx.allocate(DType::kF64, {4});
  loss_head(ctx, nll, hidden, w, from_ints(ctx, {0, 1, kIgnoredTarget, 2}));
  expect_close(to_doubles(nll), {std::log(8), std::log(4), 0, std::log(1.6)});
}

}  // namespace
}  // namespace caravan::ops::testing

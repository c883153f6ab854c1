// What the CPU backend's backward ops keep between calls, what their memory does, and which of their bits depend on
// nothing but the arguments.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "caravan/ops/adamw.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/embedding.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/loss_head.h"
#include "caravan/ops/rms_norm.h"
#include "caravan/ops/swiglu.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops {
namespace {

constexpr std::int64_t kCapacity = std::int64_t{1} << 29;

Context context(int threads = 2, bool dry_run = false) {
  return make_context({.dry_run = dry_run, .threads = threads, .memory_capacity = kCapacity});
}

Tensor filled(Context& ctx, DType dtype, const Shape& shape, int seed) {
  const Tensor tensor = ctx.allocate(dtype, shape);
  if (ctx.dry_run()) {
    return tensor;
  }
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>((i * 7919 + static_cast<std::size_t>(seed) * 104729) % 1009) / 1009.0F - 0.5F;
  }
  convert_elements(dtype, tensor.address(), DType::kF32, reinterpret_cast<const std::byte*>(values.data()),
                   tensor.elements());
  return tensor;
}

Tensor ids_of(Context& ctx, const std::vector<std::int32_t>& ids) {
  const Tensor tensor = ctx.allocate(DType::kI32, {static_cast<std::int64_t>(ids.size())});
  if (!ctx.dry_run()) {
    copy_from_host(tensor, std::as_bytes(std::span(ids)));
  }
  return tensor;
}

// Attention forward and backward of two packed sequences of unlike length, one row of padding between them.
std::vector<Tensor> attention_gradients(Context& ctx, DType dtype, const HeadShape& heads) {
  const std::vector<AttentionRange> ranges = {{0, 200, 0, 200, 0}, {201, 300, 201, 300, 0}};
  const Tensor query = filled(ctx, dtype, {300, heads.heads * heads.head_dim}, 1);
  const Tensor key = filled(ctx, dtype, {300, heads.kv_heads * heads.head_dim}, 2);
  const Tensor value = filled(ctx, dtype, {300, heads.kv_heads * heads.head_dim}, 3);
  const Tensor d_out = filled(ctx, dtype, query.shape(), 4);
  const Tensor out = ctx.allocate(dtype, query.shape());
  const Tensor lse = ctx.allocate(DType::kF32, {300, heads.heads});
  attention(ctx, out, lse, query, key, value, heads, ranges, 0.2);
  const std::vector<Tensor> gradients = {ctx.allocate(dtype, query.shape()), ctx.allocate(dtype, key.shape()),
                                         ctx.allocate(dtype, value.shape())};
  attention_grad(ctx, gradients[0], gradients[1], gradients[2], d_out, query, key, value, out, lse, heads, ranges, 0.2);
  return gradients;
}

// Every backward that plans, packs or takes workspace, in all dtypes: the staged ways and the straight ones.
void walk(Context& ctx) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor dy = filled(ctx, dtype, {600, 160}, 1);
    const Tensor x = filled(ctx, dtype, {600, 96}, 2);
    const Weight w(filled(ctx, dtype, {160, 64}, 3));
    const Tensor dx = filled(ctx, dtype, {600, 96}, 4);
    const Tensor dw = filled(ctx, DType::kF32, {160, 64}, 5);
    linear_input_grad(ctx, dx.column_range(16, 80), dy, w, Accumulate::kAdd);
    linear_weight_grad(ctx, dw, dy, x.column_range(16, 80), Accumulate::kStore);
    attention_gradients(ctx, dtype, {4, 2, 32});
    const Weight head(filled(ctx, dtype, {2500, 160}, 6));
    const Tensor nll = ctx.allocate(DType::kF32, {600});
    const Tensor d_hidden = ctx.allocate(dtype, {600, 160});
    const Tensor d_head = filled(ctx, DType::kF32, {2500, 160}, 7);
    loss_head_with_grad(ctx, nll, d_hidden, d_head, dy, head, ids_of(ctx, std::vector<std::int32_t>(600, 7)), 0.5);
    const Tensor sum = filled(ctx, DType::kF64, {1}, 8);
    add_sum_of_squares(ctx, sum, dy);
  }
}

TEST(GradPlans, AreMadeOnceAndKept) {
  Context ctx = context();
  walk(ctx);
  const std::int64_t made = plans_made(ctx);
  EXPECT_GT(made, 0);
  walk(ctx);
  EXPECT_EQ(plans_made(ctx), made);
}

TEST(GradPlans, ADryRunPredictsTheBytesOfPackedWeightsAndScratch) {
  Context real = context();
  Context dry = context(2, true);
  walk(real);
  walk(dry);
  const MemoryUse used = real.allocator->use();
  const MemoryUse predicted = dry.allocator->use();
  EXPECT_EQ(used.peak_bytes, predicted.peak_bytes);
  EXPECT_EQ(used.high_water, predicted.high_water);
  for (std::size_t i = 0; i < used.segments.size(); ++i) {
    EXPECT_EQ(used.segments[i].peak_bytes, predicted.segments[i].peak_bytes) << to_string(static_cast<Segment>(i));
  }
}

TEST(GradPlans, DoNotDependOnHowManyTargetsCount) {
  Context ctx = context();
  const Tensor hidden = filled(ctx, DType::kF32, {600, 32}, 1);
  const Weight head(filled(ctx, DType::kF32, {5000, 32}, 2));
  const Tensor nll = ctx.allocate(DType::kF32, {600});
  const Tensor d_hidden = ctx.allocate(DType::kF32, {600, 32});
  const Tensor dw = filled(ctx, DType::kF32, {5000, 32}, 3);
  std::vector<std::int32_t> targets(600, 3);
  loss_head_with_grad(ctx, nll, d_hidden, dw, hidden, head, ids_of(ctx, targets), 1);
  const std::int64_t made = plans_made(ctx);
  for (std::size_t ignored = 0; ignored < targets.size(); ignored += 37) {
    std::fill(targets.begin(), targets.begin() + static_cast<std::ptrdiff_t>(ignored), kIgnoredTarget);
    loss_head_with_grad(ctx, nll, d_hidden, dw, hidden, head, ids_of(ctx, targets), 1);
  }
  EXPECT_EQ(plans_made(ctx), made);
}

TEST(LossHeadWithGrad, TakesNoMoreWorkspaceForMoreTokens) {
  std::vector<std::int64_t> peaks;
  for (const std::int64_t tokens : {512, 5120}) {
    Context ctx = context(2, /*dry_run=*/true);
    const Tensor hidden = filled(ctx, DType::kBF16, {tokens, 64}, 1);
    const Weight head(filled(ctx, DType::kBF16, {9000, 64}, 2));
    const Tensor nll = ctx.allocate(DType::kF32, {tokens});
    const Tensor d_hidden = ctx.allocate(DType::kBF16, {tokens, 64});
    const Tensor dw = ctx.allocate(DType::kF32, {9000, 64});
    const Tensor targets = ctx.allocate(DType::kI32, {tokens});
    loss_head_with_grad(ctx, nll, d_hidden, dw, hidden, head, targets, 1);
    peaks.push_back(ctx.allocator->use().segments[static_cast<std::size_t>(Segment::kWorkspace)].peak_bytes);
  }
  EXPECT_GT(peaks[0], 0);
  EXPECT_EQ(peaks[0], peaks[1]);
}

TEST(AttentionGrad, TakesWorkspaceInProportionToTheTokensAtMost) {
  std::vector<std::int64_t> peaks;
  for (const std::int64_t tokens : {4096, 8192}) {
    Context ctx = context(2, /*dry_run=*/true);
    const HeadShape heads{4, 2, 64};
    const std::vector<AttentionRange> ranges = {{0, tokens, 0, tokens, 0}};
    const Tensor wide = ctx.allocate(DType::kF32, {tokens, 256});
    const Tensor narrow = ctx.allocate(DType::kF32, {tokens, 128});
    const Tensor d_query = ctx.allocate(DType::kF32, {tokens, 256});
    const Tensor d_key = ctx.allocate(DType::kF32, {tokens, 128});
    const Tensor d_value = ctx.allocate(DType::kF32, {tokens, 128});
    const Tensor lse = ctx.allocate(DType::kF32, {tokens, 4});
    attention_grad(ctx, d_query, d_key, d_value, wide, wide, narrow, narrow, wide, lse, heads, ranges, 0.1);
    peaks.push_back(ctx.allocator->use().segments[static_cast<std::size_t>(Segment::kWorkspace)].peak_bytes);
  }
  EXPECT_GT(peaks[0], 0);
  EXPECT_LE(peaks[1], 2 * peaks[0]);
}

TEST(LinearInputGrad, PacksASquareWeightApartFromItsForwardForm) {
  // W = [[0 1 ..], [0 0 1 ..], ..] shifts to the right one way and to the left the other: a form packed for the other
  // direction shows.
  Context ctx = context();
  constexpr std::int64_t kSize = 64;
  std::vector<float> shift(kSize * kSize, 0.0F);
  for (std::size_t i = 0; i + 1 < kSize; ++i) {
    shift[i * kSize + i + 1] = 1.0F;
  }
  const Tensor plain = ctx.allocate(DType::kF32, {kSize, kSize});
  copy_from_host(plain, std::as_bytes(std::span(shift)));
  const Weight w(plain);
  const Tensor x = filled(ctx, DType::kF32, {100, kSize}, 1);
  const Tensor y = ctx.allocate(DType::kF32, {100, kSize});
  const std::vector<float> in = to_floats(x);
  linear(ctx, y, x, w);
  EXPECT_EQ(to_floats(y)[0], in[1]);
  linear_input_grad(ctx, y, x, w, Accumulate::kStore);
  EXPECT_EQ(to_floats(y)[0], 0.0F);
  EXPECT_EQ(to_floats(y)[1], in[0]);
  linear(ctx, y, x, w);
  EXPECT_EQ(to_floats(y)[0], in[1]);
}

TEST(LinearInputGrad, PacksTheWeightAgainAfterItChanged) {
  Context ctx = context();
  const Tensor dy = filled(ctx, DType::kF32, {8, 64}, 1);
  Weight w(filled(ctx, DType::kF32, {64, 64}, 2));
  const Tensor dx = ctx.allocate(DType::kF32, {8, 64});
  linear_input_grad(ctx, dx, dy, w, Accumulate::kStore);
  zero(ctx, w.plain());
  w.changed();
  linear_input_grad(ctx, dx, dy, w, Accumulate::kStore);
  EXPECT_EQ(to_floats(dx), std::vector<float>(8 * 64, 0.0F));
}

// The results of ops whose order of sums depends on the arguments alone.
std::vector<std::vector<float>> results(int threads, DType dtype) {
  Context ctx = context(threads);
  std::vector<std::vector<float>> all;
  const Tensor dy = filled(ctx, dtype, {777, 330}, 1);
  const Tensor x = filled(ctx, dtype, {777, 330}, 2);
  const Tensor rstd = filled(ctx, DType::kF32, {777}, 3);
  const Tensor db = ctx.allocate(DType::kF32, {330});
  bias_grad(ctx, db, dy, Accumulate::kStore);
  all.push_back(to_floats(db));
  rms_norm_weight_grad(ctx, db, dy, x, rstd, NormRounding::kHuggingFace, Accumulate::kAdd);
  all.push_back(to_floats(db));
  std::vector<std::int32_t> ids(777);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(i * i % 50);
  }
  const Tensor table = filled(ctx, DType::kF32, {50, 330}, 4);
  embedding_weight_grad(ctx, table, dy, ids_of(ctx, ids));
  all.push_back(to_floats(table));
  const Tensor sum = ctx.allocate(DType::kF64, {1});
  zero(ctx, sum);
  add_sum_of_squares(ctx, sum, dy);
  all.push_back(to_floats(sum));
  for (const HeadShape& heads : {HeadShape{6, 2, 32}, HeadShape{26, 26, 16}}) {  // several pieces of keys, and one
    for (const Tensor& gradient : attention_gradients(ctx, dtype, heads)) {
      all.push_back(to_floats(gradient));
    }
  }
  return all;
}

TEST(Gradients, HaveTheSameBitsForEveryThreadCount) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const std::vector<std::vector<float>> alone = results(1, dtype);
    EXPECT_EQ(results(2, dtype), alone);
    EXPECT_EQ(results(5, dtype), alone);
  }
}

TEST(RoundedWeight, GivesTheBitsOfTheCopyThatWouldStandBesideIt) {
  for (const Backend backend : {Backend::kCpu, Backend::kRef}) {
    for (const std::int64_t out :
         {std::int64_t{48}, std::int64_t{2100}}) {  // one piece on the way to blocks, and several
      Context ctx = context();
      ctx.backend = backend;
      const Tensor master = filled(ctx, DType::kF32, {out, 64}, 1);
      const Tensor copy = ctx.allocate(DType::kBF16, master.shape());
      convert(ctx, copy, master);
      const Tensor x = filled(ctx, DType::kBF16, {33, 64}, 2);
      const Tensor dy = filled(ctx, DType::kBF16, {33, out}, 3);
      const auto products = [&](const Weight& w) {
        const Tensor y = ctx.allocate(DType::kBF16, dy.shape());
        const Tensor dx = ctx.allocate(DType::kBF16, x.shape());
        linear(ctx, y, x, w);
        linear_input_grad(ctx, dx, dy, w, Accumulate::kStore);
        return std::pair(to_floats(y), to_floats(dx));
      };
      const Weight rounded = Weight::rounded(master, DType::kBF16);
      EXPECT_FALSE(rounded.plain().defined());
      EXPECT_EQ(rounded.dtype(), DType::kBF16);
      EXPECT_EQ(products(rounded), products(Weight(copy))) << to_string(backend) << " " << out;
    }
  }
}

TEST(RoundedWeight, KeepsAPackedFormUntilItsLastReaderIsDone) {
  Context ctx = context();
  const Weight w = Weight::rounded(filled(ctx, DType::kF32, {96, 64}, 1), DType::kBF16);
  const Tensor x = filled(ctx, DType::kBF16, {33, 64}, 2);
  const Tensor y = ctx.allocate(DType::kBF16, {33, 96});
  const auto weights = [&] {
    return ctx.allocator->use().segments[static_cast<std::size_t>(Segment::kWeights)].live_bytes;
  };
  EXPECT_EQ(weights(), 0);
  linear(ctx, y, x, w);
  EXPECT_GT(weights(), 0);
  w.release(WeightUse::kBackward);
  EXPECT_GT(weights(), 0);
  w.release(WeightUse::kForward);
  EXPECT_EQ(weights(), 0);
  linear(ctx, y, x, w);
  const Tensor dx = ctx.allocate(DType::kBF16, x.shape());
  linear_input_grad(ctx, dx, y, w, Accumulate::kStore);
  w.release(WeightUse::kBoth);
  EXPECT_EQ(weights(), 0);
}

TEST(LinearWeightGrad, OfFewColumnsHasTheSameBitsForEveryThreadCount) {
  const auto gradient = [](int threads) {
    Context ctx = context(threads);
    ctx.isa = Isa::kAvx2;  // whose narrow products are ours
    std::string implementation;
    ctx.on_choice = [&](const Choice& choice) { implementation = choice.implementation; };
    const Tensor dw = filled(ctx, DType::kF32, {1021, 70}, 3);
    linear_weight_grad(ctx, dw, filled(ctx, DType::kF32, {700, 1021}, 1), filled(ctx, DType::kF32, {700, 70}, 2),
                       Accumulate::kAdd);
    EXPECT_EQ(implementation, "simd-narrow");
    return to_floats(dw);
  };
  const std::vector<float> alone = gradient(1);
  EXPECT_EQ(gradient(2), alone);
  EXPECT_EQ(gradient(7), alone);
}

TEST(LinearWeightGrad, HasTheSameBitsEveryRun) {
  Context ctx = context(2);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor dy = filled(ctx, dtype, {1500, 96}, 1);
    const Tensor x = filled(ctx, dtype, {1500, 64}, 2);
    const Tensor dw = ctx.allocate(DType::kF32, {96, 64});
    linear_weight_grad(ctx, dw, dy, x, Accumulate::kStore);
    const std::vector<float> first = to_floats(dw);
    for (int i = 0; i < 10; ++i) {
      linear_weight_grad(ctx, dw, dy, x, Accumulate::kStore);
      EXPECT_EQ(to_floats(dw), first);
    }
  }
}

TEST(SwigluGrad, IsFiniteAndHasItsLimitsWhereTheExponentialOverflows) {
  Context ctx = context();
  const std::vector<float> gates = {-1000, -120, -89, -88, 0, 88, 120, 1000};
  std::vector<float> rows(gates);
  rows.insert(rows.end(), gates.size(), 1.0F);  // up
  const Tensor gate_up = ctx.allocate(DType::kF32, {1, 16});
  copy_from_host(gate_up, std::as_bytes(std::span(rows)));
  const Tensor dy = ctx.allocate(DType::kF32, {1, 8});
  const std::vector<float> ones(8, 1.0F);
  copy_from_host(dy, std::as_bytes(std::span(ones)));
  const Tensor d_gate_up = ctx.allocate(DType::kF32, {1, 16});
  swiglu_grad(ctx, d_gate_up, dy, gate_up);
  const std::vector<float> got = to_floats(d_gate_up);
  for (std::size_t i = 0; i < gates.size(); ++i) {
    const double gate = gates[i];
    const double s = 1 / (1 + std::exp(-gate));
    // Results below the normal numbers may be flushed to 0.
    EXPECT_NEAR(got[i], s * (1 + gate * (1 - s)), 1e-6 * std::abs(s) + 2e-37) << "gate " << gate;
    EXPECT_NEAR(got[8 + i], gate * s, 1e-6 * std::abs(gate * s) + 2e-37) << "gate " << gate;
  }
}

}  // namespace
}  // namespace caravan::ops

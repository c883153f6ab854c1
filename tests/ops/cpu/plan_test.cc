// What the CPU backend keeps between calls, and what its memory does.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "caravan/ops/attention.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/loss_head.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops {
namespace {

constexpr std::int64_t kCapacity = std::int64_t{1} << 28;

Context context(int threads = 2, bool dry_run = false) {
  return make_context({.dry_run = dry_run, .threads = threads, .memory_capacity = kCapacity});
}

void write(const Tensor& tensor, const std::vector<float>& values) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes()));
  convert_elements(tensor.dtype(), bytes.data(), DType::kF32, reinterpret_cast<const std::byte*>(values.data()),
                   tensor.elements());
  copy_from_host(tensor, bytes);
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
  write(tensor, values);
  return tensor;
}

Tensor targets_of(Context& ctx, const std::vector<std::int32_t>& ids) {
  const Tensor tensor = ctx.allocate(DType::kI32, {static_cast<std::int64_t>(ids.size())});
  if (!ctx.dry_run()) {
    copy_from_host(tensor, std::as_bytes(std::span(ids)));
  }
  return tensor;
}

// A linear with everything, the staged way and the straight one, and a loss head: all dtypes.
void walk(Context& ctx) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor x = filled(ctx, dtype, {300, 96}, 1);
    const Weight w(filled(ctx, dtype, {160, 64}, 2));
    const Tensor bias = filled(ctx, dtype, {160}, 3);
    const Tensor residual = filled(ctx, dtype, {300, 160}, 4);
    const Tensor y = ctx.allocate(dtype, {300, 160});
    linear(ctx, y, x.column_range(16, 80), w, bias, residual);
    const Weight head(filled(ctx, dtype, {2500, 160}, 5));
    const Tensor nll = ctx.allocate(DType::kF32, {300});
    loss_head(ctx, nll, y, head, targets_of(ctx, std::vector<std::int32_t>(300, 7)));
  }
}

TEST(Plans, AreMadeOnceAndKept) {
  Context ctx = context();
  walk(ctx);
  const std::int64_t made = plans_made(ctx);
  EXPECT_GT(made, 0);
  walk(ctx);
  EXPECT_EQ(plans_made(ctx), made);
}

TEST(Plans, DoNotDependOnHowManyTargetsCount) {
  Context ctx = context();
  const Tensor hidden = filled(ctx, DType::kF32, {600, 32}, 1);
  const Weight head(filled(ctx, DType::kF32, {100, 32}, 2));
  const Tensor nll = ctx.allocate(DType::kF32, {600});
  std::vector<std::int32_t> targets(600, 3);
  loss_head(ctx, nll, hidden, head, targets_of(ctx, targets));
  const std::int64_t made = plans_made(ctx);
  for (std::size_t ignored = 0; ignored < targets.size(); ignored += 37) {
    std::fill(targets.begin(), targets.begin() + static_cast<std::ptrdiff_t>(ignored), kIgnoredTarget);
    loss_head(ctx, nll, hidden, head, targets_of(ctx, targets));
  }
  EXPECT_EQ(plans_made(ctx), made);
}

TEST(Plans, ADryRunPredictsTheBytesOfPackedWeightsAndScratch) {
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

TEST(Weight, IsPackedAgainAfterItChanged) {
  Context ctx = context();
  const Tensor x = filled(ctx, DType::kF32, {8, 64}, 1);
  Weight w(filled(ctx, DType::kF32, {64, 64}, 2));
  const Tensor y = ctx.allocate(DType::kF32, {8, 64});
  linear(ctx, y, x, w);
  const std::vector<float> zeros(64 * 64, 0.0F);
  copy_from_host(w.plain(), std::as_bytes(std::span(zeros)));
  w.changed();
  linear(ctx, y, x, w);
  EXPECT_EQ(to_floats(y), std::vector<float>(8 * 64, 0.0F));
}

TEST(Linear, RoundsProductBiasAndResidualOnce) {
  // Product 1, bias 2^-8, residual 2^-8: the sum in f32 is 1 + 2^-7, which bf16 holds.  Rounding to bf16 after the bias
  // ties down to 1, and adding the residual to that ties down to 1 again.
  Context ctx = context();
  for (const std::int64_t tokens : {1, 5, 300}) {
    const Tensor x = ctx.allocate(DType::kBF16, {tokens, 32});
    const Tensor y = ctx.allocate(DType::kBF16, {tokens, 96});
    const Tensor residual = ctx.allocate(DType::kBF16, {tokens, 96});
    const Weight w(ctx.allocate(DType::kBF16, {96, 32}));
    const Tensor bias = ctx.allocate(DType::kBF16, {96});
    const auto set = [](const Tensor& t, float value) {
      write(t, std::vector<float>(static_cast<std::size_t>(t.elements()), value));
    };
    set(x, 1.0F);
    set(w.plain(), 1.0F / 32);
    set(bias, 1.0F / 256);
    const std::vector<float> expected(static_cast<std::size_t>(tokens * 96), 1.0F + 1.0F / 128);
    set(residual, 1.0F / 256);
    linear(ctx, y, x, w, bias, residual);
    EXPECT_EQ(to_floats(y), expected) << tokens << " tokens, residual beside";
    set(y, 1.0F / 256);
    linear(ctx, y, x, w, bias, y);
    EXPECT_EQ(to_floats(y), expected) << tokens << " tokens, residual in place";
  }
}

TEST(Attention, HasTheSameBitsForEveryThreadCount) {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 5}) {
    Context ctx = context(threads);
    const Tensor query = filled(ctx, DType::kF32, {201, 6 * 32}, 1);
    const Tensor key = filled(ctx, DType::kF32, {2700, 2 * 32}, 2);
    const Tensor value = filled(ctx, DType::kF32, {2700, 2 * 32}, 3);
    const Tensor out = ctx.allocate(DType::kF32, {201, 6 * 32});
    // A decode step whose keys are cut into pieces, and a prefill.
    attention(ctx, out, {}, query, key, value, {6, 2, 32}, {{0, 1, 0, 2500, 2499}, {1, 201, 2500, 2700, 0}}, 0.2);
    results.push_back(to_floats(out));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Contexts, InTwoThreadsComputeWhatEachComputesAlone) {
  const auto compute = [](int threads, DType dtype) {
    Context ctx = context(threads);
    const Tensor x = filled(ctx, dtype, {257, 128}, 1);
    const Weight w(filled(ctx, dtype, {192, 128}, 2));
    const Tensor y = ctx.allocate(dtype, {257, 192});
    for (int i = 0; i < 20; ++i) {
      linear(ctx, y, x, w);
    }
    return to_floats(y);
  };
  const std::vector<float> first = compute(1, DType::kF32);
  const std::vector<float> second = compute(2, DType::kBF16);
  std::vector<float> first_beside;
  std::vector<float> second_beside;
  std::thread other([&] { first_beside = compute(1, DType::kF32); });
  second_beside = compute(2, DType::kBF16);
  other.join();
  EXPECT_EQ(first, first_beside);
  EXPECT_EQ(second, second_beside);
}

}  // namespace
}  // namespace caravan::ops

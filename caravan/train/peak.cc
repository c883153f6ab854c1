#include "caravan/train/peak.h"

#include <algorithm>
#include <chrono>

#include "caravan/ops/elementwise.h"
#include "caravan/ops/linear.h"

namespace caravan::train {

double measured_product_peak(ops::Context& ctx, DType dtype) {
  if (ctx.dry_run()) {
    return 0.0;
  }
  constexpr std::int64_t kSide = 1024;
  constexpr double kSeconds = 0.25;
  constexpr int kLeast = 3;
  using Clock = std::chrono::steady_clock;
  const Tensor x = ctx.allocate(dtype, {kSide, kSide}, Segment::kWorkspace);
  const Tensor y = ctx.allocate(dtype, {kSide, kSide}, Segment::kWorkspace);
  const ops::Weight weight(ctx.allocate(dtype, {kSide, kSide}, Segment::kWorkspace));
  ops::zero(ctx, x);
  ops::zero(ctx, weight.plain());
  const auto run = [&] {
    const Clock::time_point begin = Clock::now();
    ops::linear(ctx, y, x, weight);
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  run();  // packs the weight and makes the plan
  double best = run();
  double spent = best;
  for (int i = 0; i < kLeast || spent < kSeconds; ++i) {
    const double seconds = run();
    best = std::min(best, seconds);
    spent += seconds;
  }
  return 2.0 * kSide * kSide * kSide / best;
}

}  // namespace caravan::train

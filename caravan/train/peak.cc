#include "caravan/train/peak.h"

#include <algorithm>
#include <chrono>

#include "caravan/ops/elementwise.h"
#include "caravan/ops/linear.h"

namespace caravan::train {

namespace {

using Clock = std::chrono::steady_clock;

// A product of squares of `side`, again and again.
class Product {
 public:
  Product(ops::Context& ctx, DType dtype, std::int64_t side)
      : ctx_(ctx),
        side_(side),
        x_(ctx.allocate(dtype, {side, side}, Segment::kWorkspace)),
        y_(ctx.allocate(dtype, {side, side}, Segment::kWorkspace)),
        weight_(ctx.allocate(dtype, {side, side}, Segment::kWorkspace)) {
    ops::zero(ctx, x_);
    ops::zero(ctx, weight_.plain());
    run();  // packs the weight and makes the plan
  }

  double run() {
    const Clock::time_point begin = Clock::now();
    ops::linear(ctx_, y_, x_, weight_);
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }
  double flops() const { return 2.0 * static_cast<double>(side_) * static_cast<double>(side_ * side_); }

 private:
  ops::Context& ctx_;
  std::int64_t side_;
  Tensor x_;
  Tensor y_;
  ops::Weight weight_;
};

}  // namespace

double measured_product_peak(ops::Context& ctx, DType dtype) {
  if (ctx.dry_run()) {
    return 0.0;
  }
  // The start of every run waits for this: a product that takes a few milliseconds is large enough to reach the peak.
  constexpr std::int64_t kSmallest = 256;
  constexpr std::int64_t kLargest = 2048;
  constexpr double kProductSeconds = 2e-3;
  constexpr double kSeconds = 0.02;
  constexpr int kLeast = 3;
  for (std::int64_t side = kSmallest;; side *= 2) {
    Product product(ctx, dtype, side);
    double best = product.run();
    if (best < kProductSeconds && side < kLargest) {
      continue;
    }
    double spent = best;
    for (int i = 0; i < kLeast || spent < kSeconds; ++i) {
      const double seconds = product.run();
      best = std::min(best, seconds);
      spent += seconds;
    }
    return product.flops() / best;
  }
}

}  // namespace caravan::train

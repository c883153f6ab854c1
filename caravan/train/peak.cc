#include "caravan/train/peak.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "caravan/base/philox.h"
#include "caravan/base/threads.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/random.h"
#include "caravan/ops/reading.h"

namespace caravan::train {

namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

bool on_gpu(const ops::Context& ctx) {
  return ctx.backend == ops::Backend::kCuda;
}

// Rows and columns of the product.  A GPU is tried with small ones first: what fills it depends on what it is.
std::int64_t first_side(const ops::Context& ctx) {
  return on_gpu(ctx) ? 256 : 1024;
}
std::int64_t last_side(const ops::Context& ctx) {
  return on_gpu(ctx) ? 8192 : 1024;
}

std::int64_t product_capacity(const ops::Context& like, DType dtype) {
  constexpr std::int64_t kWorkspace = 64 * kMiB;
  // On a GPU the result once more, for algorithms that are tried (Context::tune_products).
  return last_side(like) * last_side(like) * (on_gpu(like) ? 4 * size_of(dtype) : 3 * 4) + kWorkspace;
}

ops::Context own_context(const ops::Context& like, std::int64_t capacity) {
  ops::Context ctx = ops::make_context({.backend = like.backend,
                                        .dry_run = false,
                                        .threads = like.threads,
                                        .memory_capacity = capacity,
                                        .cuda_device = like.allocator->device().index});
  ctx.isa = like.isa;
  return ctx;
}

// Whole MiB.
std::int64_t bytes_to_read(const ops::Context& like) {
  if (on_gpu(like)) {
    return 1024 * kMiB;  // many times any cache
  }
  constexpr std::int64_t kLeast = 256 * kMiB;
  constexpr std::int64_t kTimesTheCache = 4;
  constexpr std::int64_t kShareOfMemory = 4;
  const std::int64_t cache = std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE));
  const std::int64_t wanted = std::max(kLeast, kTimesTheCache * cache);
  return std::max<std::int64_t>(std::min(wanted, usable_memory() / kShareOfMemory) / kMiB, 1) * kMiB;
}

// The least time of a call in about `seconds`; of one at least, of three where there is no `best` yet to compare with.
template <typename Call>
double least_time(double best, double seconds, const Call& call) {
  using Clock = std::chrono::steady_clock;
  const int fewest = best > 0.0 ? 1 : 3;
  double least = std::numeric_limits<double>::infinity();
  double spent = 0.0;
  for (int i = 0; i < fewest || spent < seconds; ++i) {
    const Clock::time_point begin = Clock::now();
    call();
    const double once = std::chrono::duration<double>(Clock::now() - begin).count();
    spent += once;
    least = std::min(least, once);
  }
  return least;
}

// Zeros do for the processor.  A GPU multiplies them faster than other numbers, since switching bits takes power.
void fill(ops::Context& ctx, const Tensor& tensor) {
  if (on_gpu(ctx)) {
    ops::random_normal(ctx, tensor, RandomStream(1, "peak"), 0, 1.0);
  } else {
    ops::zero(ctx, tensor);
  }
}

}  // namespace

PeakMeter::PeakMeter(const ops::Context& like, DType dtype) : ctx_(own_context(like, product_capacity(like, dtype))) {
  constexpr double kFills = 1e-3;  // seconds of a product, beside which its start counts for nothing
  for (std::int64_t side = first_side(like); side <= last_side(like); side *= 2) {
    const Shape square{side, side};
    x_ = y_ = Tensor();
    weight_ = ops::Weight();
    x_ = ctx_.allocate(dtype, square);
    y_ = ctx_.allocate(dtype, square);
    weight_ = ops::Weight(ctx_.allocate(dtype, square));
    fill(ctx_, x_);
    fill(ctx_, weight_.plain());
    multiply();  // packs the weight and makes the plan
    if (side < last_side(like) && least_time(0.0, 0.0, [&] { multiply(); }) > kFills) {
      return;
    }
  }
}

void PeakMeter::multiply() {
  ops::linear(ctx_, y_, x_, weight_);
  ops::synchronize(ctx_);
}

double PeakMeter::measure(double seconds) {
  const auto side = static_cast<double>(x_.rows());
  const double operations = 2.0 * side * side * side;
  best_ = std::max(best_, operations / least_time(best_, seconds, [&] { multiply(); }));
  return best_;
}

ReadMeter::ReadMeter(const ops::Context& like)
    : ctx_(own_context(like, bytes_to_read(like) + 4 * kMiB)),
      x_(ctx_.allocate(DType::kI64, {bytes_to_read(like) / size_of(DType::kI64)})),
      sum_(ctx_.allocate(DType::kI64, {1})) {
  ops::zero(ctx_, x_);
}

double ReadMeter::measure(double seconds) {
  const auto all = static_cast<double>(bytes());
  const double least = least_time(best_, seconds, [&] {
    ops::sum_words(ctx_, sum_, x_);
    ops::synchronize(ctx_);
  });
  best_ = std::max(best_, all / least);
  return best_;
}

}  // namespace caravan::train

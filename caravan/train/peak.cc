#include "caravan/train/peak.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "caravan/base/threads.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/reading.h"

namespace caravan::train {

namespace {

constexpr std::int64_t kSide = 1024;
constexpr std::int64_t kMiB = std::int64_t{1} << 20;
constexpr std::int64_t kProductCapacity = 64 * kMiB;

ops::Context own_context(const ops::Context& like, std::int64_t capacity) {
  ops::Context ctx = ops::make_context(
      {.backend = like.backend, .dry_run = false, .threads = like.threads, .memory_capacity = capacity});
  ctx.isa = like.isa;
  return ctx;
}

// Whole MiB.
std::int64_t bytes_to_read() {
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

}  // namespace

PeakMeter::PeakMeter(const ops::Context& like, DType dtype)
    : ctx_(own_context(like, kProductCapacity)),
      x_(ctx_.allocate(dtype, {kSide, kSide})),
      y_(ctx_.allocate(dtype, {kSide, kSide})),
      weight_(ctx_.allocate(dtype, {kSide, kSide})) {
  ops::zero(ctx_, x_);
  ops::zero(ctx_, weight_.plain());
  ops::linear(ctx_, y_, x_, weight_);  // packs the weight and makes the plan
}

double PeakMeter::measure(double seconds) {
  constexpr double kOperations = 2.0 * kSide * kSide * kSide;
  best_ = std::max(best_, kOperations / least_time(best_, seconds, [&] { ops::linear(ctx_, y_, x_, weight_); }));
  return best_;
}

ReadMeter::ReadMeter(const ops::Context& like)
    : ctx_(own_context(like, bytes_to_read() + kMiB)),
      x_(ctx_.allocate(DType::kI64, {bytes_to_read() / size_of(DType::kI64)})),
      sum_(ctx_.allocate(DType::kI64, {1})) {
  ops::zero(ctx_, x_);
}

double ReadMeter::measure(double seconds) {
  const auto all = static_cast<double>(bytes());
  best_ = std::max(best_, all / least_time(best_, seconds, [&] { ops::sum_words(ctx_, sum_, x_); }));
  return best_;
}

}  // namespace caravan::train

#include "caravan/train/peak.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/base/threads.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/linear.h"

namespace caravan::train {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

constexpr std::int64_t kSide = 1024;
constexpr std::int64_t kCapacity = std::int64_t{1} << 26;

ops::Context own_context(const ops::Context& like) {
  ops::Context ctx = ops::make_context(
      {.backend = like.backend, .dry_run = false, .threads = like.threads, .memory_capacity = kCapacity});
  ctx.isa = like.isa;
  return ctx;
}

constexpr std::int64_t kMiB = std::int64_t{1} << 20;
constexpr std::int64_t kLargePage = 2 * kMiB;

// Whole large pages.
std::int64_t buffer_bytes() {
  constexpr std::int64_t kLeast = 256 * kMiB;
  constexpr std::int64_t kTimesTheCache = 4;
  constexpr std::int64_t kShareOfMemory = 4;
  const std::int64_t cache = std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE));
  const std::int64_t wanted = std::max(kLeast, kTimesTheCache * cache);
  const std::int64_t bytes = std::min(wanted, usable_memory() / kShareOfMemory);
  return std::max(bytes / kLargePage, std::int64_t{1}) * kLargePage;
}

// Two words: what every x86-64 processor loads at once.  A core waits for memory, however wide its loads are.
using Vector __attribute__((vector_size(16))) = std::uint64_t;
constexpr std::int64_t kVectorBytes = sizeof(Vector);
constexpr std::int64_t kSums = 8;  // side by side, so that an addition does not wait for the one before
constexpr std::int64_t kGrain = kLargePage / kVectorBytes;
static_assert(kGrain % kSums == 0);

// Of all words between the two, which are a multiple of kSums vectors apart.
std::uint64_t sum_of(const Vector* begin, const Vector* end) {
  Vector sums[kSums] = {};
  for (; begin != end; begin += kSums) {
    for (std::int64_t k = 0; k < kSums; ++k) {
      sums[k] += begin[k];
    }
  }
  for (std::int64_t k = 1; k < kSums; ++k) {
    sums[0] += sums[k];
  }
  return sums[0][0] + sums[0][1];
}

}  // namespace

PeakMeter::PeakMeter(const ops::Context& like, DType dtype)
    : ctx_(own_context(like)),
      x_(ctx_.allocate(dtype, {kSide, kSide})),
      y_(ctx_.allocate(dtype, {kSide, kSide})),
      weight_(ctx_.allocate(dtype, {kSide, kSide})) {
  ops::zero(ctx_, x_);
  ops::zero(ctx_, weight_.plain());
  ops::linear(ctx_, y_, x_, weight_);  // packs the weight and makes the plan
}

double PeakMeter::measure(double seconds) {
  const int least = best_ > 0.0 ? 1 : 3;  // the first time there is nothing to compare with
  double spent = 0.0;
  for (int i = 0; i < least || spent < seconds; ++i) {
    const Clock::time_point begin = Clock::now();
    ops::linear(ctx_, y_, x_, weight_);
    const double once = seconds_since(begin);
    spent += once;
    best_ = std::max(best_, 2.0 * kSide * kSide * kSide / once);
  }
  return best_;
}

void ReadMeter::Free::operator()(void* buffer) const {
  std::free(buffer);
}

ReadMeter::ReadMeter(int threads) : threads_(threads), bytes_(buffer_bytes()) {
  buffer_.reset(std::aligned_alloc(static_cast<std::size_t>(kLargePage), static_cast<std::size_t>(bytes_)));
  if (buffer_ == nullptr) {
    throw OutOfMemoryError(
        fmt::format("the system does not give {} bytes, over which reading is timed; free memory", grouped(bytes_)));
  }
  madvise(buffer_.get(), static_cast<std::size_t>(bytes_), MADV_HUGEPAGE);  // a wish: small pages serve too
  Vector* const vectors = static_cast<Vector*>(buffer_.get());
  parallel_for(threads_, bytes_ / kVectorBytes, kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::fill(vectors + begin, vectors + end, Vector{1, 1});
  });
}

double ReadMeter::measure(double seconds) {
  const int least = best_ > 0.0 ? 1 : 3;
  const Vector* const vectors = static_cast<const Vector*>(buffer_.get());
  double spent = 0.0;
  for (int i = 0; i < least || spent < seconds; ++i) {
    std::atomic<std::uint64_t> total{0};
    const Clock::time_point begin = Clock::now();
    parallel_for(threads_, bytes_ / kVectorBytes, kGrain,
                 [&](std::int64_t first, std::int64_t last) { total += sum_of(vectors + first, vectors + last); });
    const double once = seconds_since(begin);
    if (total != static_cast<std::uint64_t>(bytes_) / sizeof(std::uint64_t)) {  // every word is 1
      throw Error("reading memory gave another sum than was written there; this is a bug of Caravan or of the machine");
    }
    spent += once;
    best_ = std::max(best_, static_cast<double>(bytes_) / once);
  }
  return best_;
}

}  // namespace caravan::train

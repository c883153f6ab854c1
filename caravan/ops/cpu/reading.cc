// The sum of a tensor's words on the context's threads.
#include <atomic>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cpu/kernel_choice.h"

namespace caravan::ops::cpu {
namespace {

// Words a thread takes at least: 1 MiB.
constexpr std::int64_t kGrain = std::int64_t{1} << 17;

void run_sum_words(Context& ctx, const SumWordsArgs& args, std::byte*) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(args.x.address());
  std::atomic<std::uint64_t> total{0};
  parallel_for(ctx.threads, args.x.bytes() / size_of(DType::kI64), kGrain, [&](std::int64_t begin, std::int64_t end) {
    total += kernels_for(ctx.isa).sum_words(words + begin, end - begin);
  });
  *reinterpret_cast<std::uint64_t*>(args.sum.address()) = total;
}

}  // namespace

ImplementationList<SumWordsArgs> sum_words_list() {
  static const auto kList = simd_list<SumWordsArgs>(nullptr, nullptr, run_sum_words);
  return kList;
}

}  // namespace caravan::ops::cpu

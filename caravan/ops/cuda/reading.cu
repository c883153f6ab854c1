// Reading memory and nothing else.
#include "caravan/ops/reading.h"

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

using Word = unsigned long long;
constexpr int kThreads = 512;

// Sums of whole numbers are the same in any order, so atomics do here.
template <int kCount>
__global__ void sum_kernel(Word* sum, const Word* words, std::int64_t count) {
  using Packed = Pack<Word, kCount>;
  constexpr int kUnroll = 4;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x * kCount;
  std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount;
  Word mine = 0;
  for (; i + (kUnroll - 1) * step < count; i += kUnroll * step) {
    Packed values[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      values[u] = Packed::at(words + i + u * step);
    }
    for (int u = 0; u < kUnroll; ++u) {
      for (int j = 0; j < kCount; ++j) {
        mine += values[u].element[j];
      }
    }
  }
  for (; i < count; i += step) {
    const Packed values = Packed::at(words + i);
    for (int j = 0; j < kCount; ++j) {
      mine += values.element[j];
    }
  }
  mine = block_sum(mine);
  if (threadIdx.x == 0) {
    atomicAdd(sum, mine);
  }
}

void run_sum(Context& ctx, const SumWordsArgs& args, std::byte* /*workspace*/) {
  check_cuda(cudaMemsetAsync(args.sum.address(), 0, sizeof(Word), stream()), "sum_words");
  const std::int64_t count = args.x.bytes() / static_cast<std::int64_t>(sizeof(Word));
  const auto address = reinterpret_cast<std::uintptr_t>(args.x.address());
  if (address % sizeof(Word) != 0) {
    throw UnsupportedError("sum_words: on a GPU words have to stand at multiples of 8 bytes");
  }
  with_width<Word>(count % kWideCount<Word> == 0 && address % 16 == 0, [&]<int kCount>() {
    const unsigned most = static_cast<unsigned>(state(ctx).multiprocessors) * 4;
    launch("sum_words", sum_kernel<kCount>, std::min(blocks_for(count, kThreads * kCount), most), kThreads, 0,
           elements<Word>(args.sum), elements<const Word>(args.x), count);
  });
}

constexpr Implementation<SumWordsArgs> kSumWords[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_sum},
};

}  // namespace

ImplementationList<SumWordsArgs> sum_words_list() {
  return kSumWords;
}

}  // namespace caravan::ops::cuda

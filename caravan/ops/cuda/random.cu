// Random values with the bits of the processor's: compiled without contraction (base/philox_arithmetic.h).
#include "caravan/base/philox_arithmetic.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void normal_kernel(T* y, std::int64_t count, std::uint64_t seed, std::uint64_t name_hash,
                              std::uint64_t first, double deviation) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const double value = deviation * philox::normal(seed, name_hash, first + static_cast<std::uint64_t>(i));
    y[i] = round_to<T>(static_cast<Real<T>>(static_cast<float>(value)));
  }
}

void run_normal(Context& ctx, const RandomNormalArgs& args, std::byte* /*workspace*/) {
  const std::int64_t count = args.y.elements();
  const unsigned most = static_cast<unsigned>(state(ctx).multiprocessors) * 32;
  with_element(args.y.dtype(), [&]<typename T>() {
    launch("random_normal", normal_kernel<T>, std::min(blocks_for(count, kThreads), most), kThreads, 0,
           elements<T>(args.y), count, args.stream.seed(), args.stream.name_hash(), args.first, args.deviation);
  });
}

constexpr Implementation<RandomNormalArgs> kNormal[] = {
    {"philox", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_normal},
};

}  // namespace

ImplementationList<RandomNormalArgs> random_normal_list() {
  return kNormal;
}

}  // namespace caravan::ops::cuda

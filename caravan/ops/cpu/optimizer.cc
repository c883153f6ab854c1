// AdamW and the sum of squares on the context's threads.
#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cpu/kernel_choice.h"
#include "caravan/ops/host_checks.h"

namespace caravan::ops::cpu {
namespace {

// Elements a thread takes at a time: whole cache lines, and enough to be worth starting it.
constexpr std::int64_t kElements = 16384;
// Elements whose squares are added up at a stretch.  It is part of the result: the blocks' sums are added in order.
constexpr std::int64_t kBlock = 8192;

// Factors are rounded from f64, as torch's scalars are.
void run_adamw(Context& ctx, const AdamWArgs& args, std::byte*) {
  const std::optional<AdamWFactors> factors = host_factors(args);
  if (!factors) {
    return;
  }
  const AdamW& settings = args.settings;
  const auto elements = [](const Tensor& tensor) { return reinterpret_cast<float*>(tensor.address()); };
  const AdamWElements all{.master = elements(args.master),
                          .m = elements(args.m),
                          .v = elements(args.v),
                          .gradient = elements(args.gradient),
                          .gradient_scale = static_cast<float>(factors->gradient_scale),
                          .kept = static_cast<float>(1 - factors->lr * settings.weight_decay),
                          .one_less_beta1 = static_cast<float>(1 - settings.beta1),
                          .beta2 = static_cast<float>(settings.beta2),
                          .one_less_beta2 = static_cast<float>(1 - settings.beta2),
                          .root_correction = static_cast<float>(factors->root_correction),
                          .eps = static_cast<float>(settings.eps),
                          .step_size = static_cast<float>(factors->lr / factors->correction1)};
  parallel_for(ctx.threads, args.master.elements(), kElements,
               [&](std::int64_t begin, std::int64_t end) { kernels_for(ctx.isa).adamw(all, begin, end); });
}

std::int64_t blocks_of(const SumOfSquaresArgs& args) {
  return (args.x.elements() + kBlock - 1) / kBlock;
}

std::int64_t workspace(Context&, const SumOfSquaresArgs& args) {
  return blocks_of(args) * static_cast<std::int64_t>(sizeof(double));
}

void run_sum_of_squares(Context& ctx, const SumOfSquaresArgs& args, std::byte* workspace) {
  const SquareBlocks blocks{.element = element_of(args.x.dtype()),
                            .x = args.x.address(),
                            .count = args.x.elements(),
                            .block = kBlock,
                            .sums = reinterpret_cast<double*>(workspace)};
  parallel_for(ctx.threads, blocks_of(args), 2,
               [&](std::int64_t begin, std::int64_t end) { kernels_for(ctx.isa).squares(blocks, begin, end); });
  double total = 0;
  for (std::int64_t i = 0; i < blocks_of(args); ++i) {
    total += blocks.sums[i];
  }
  *reinterpret_cast<double*>(args.sum.address()) += total;
}

const char* refuse_adamw(const Context&, const AdamWArgs& args) {
  return args.master.dtype() == DType::kF32 ? nullptr : kNoF64;
}
const char* refuse_sum_of_squares(const Context&, const SumOfSquaresArgs& args) {
  return has_kernels(args.x.dtype()) ? nullptr : kNoF64;
}

}  // namespace

ImplementationList<AdamWArgs> adamw_list() {
  static const auto kList = simd_list<AdamWArgs>(refuse_adamw, nullptr, run_adamw);
  return kList;
}

ImplementationList<SumOfSquaresArgs> sum_of_squares_list() {
  static const auto kList = simd_list<SumOfSquaresArgs>(refuse_sum_of_squares, workspace, run_sum_of_squares);
  return kList;
}

}  // namespace caravan::ops::cpu

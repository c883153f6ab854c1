#include "caravan/ops/cpu/narrow_product.h"

#include <algorithm>

#include "caravan/base/threads.h"
#include "caravan/ops/cpu/kernel_choice.h"

namespace caravan::ops::cpu {
namespace {

constexpr std::int64_t kMostColumns = 256;
constexpr std::int64_t kFewestRows = 512;
// Rows of dw a thread takes at least: each copies x for itself, which costs one row's work in `rows`.
constexpr std::int64_t kRowsPerThread = 96;

std::int64_t threads_for(const Context& ctx, std::int64_t out) {
  return std::clamp<std::int64_t>(out / kRowsPerThread, 1, ctx.threads);
}

}  // namespace

const char* refuse_narrow(const Context& ctx, std::int64_t out, std::int64_t in) {
  if (ctx.isa >= Isa::kAvx512) {
    return "not measured above avx2";
  }
  return in <= kMostColumns && out >= kFewestRows ? nullptr : "oneDNN is as fast on this shape";
}

std::int64_t narrow_workspace(const Context& ctx, std::int64_t out, std::int64_t in) {
  return threads_for(ctx, out) * kernels_for(ctx.isa).narrow_scratch(in) * static_cast<std::int64_t>(sizeof(float));
}

void run_narrow(const Context& ctx, const NarrowWeightGrad& args, std::byte* workspace) {
  const Kernels& kernels = kernels_for(ctx.isa);
  const std::int64_t threads = threads_for(ctx, args.out);
  const std::int64_t scratch = kernels.narrow_scratch(args.in);
  auto* const floats = reinterpret_cast<float*>(workspace);
  // Whole panels a thread, as equal as they come.
  const std::int64_t panels = (args.out + kNarrowPanel - 1) / kNarrowPanel;
  parallel_for(static_cast<int>(threads), threads, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t thread = first; thread < last; ++thread) {
      kernels.narrow_weight_grad(args, panels * thread / threads * kNarrowPanel,
                                 std::min(args.out, panels * (thread + 1) / threads * kNarrowPanel),
                                 floats + thread * scratch);
    }
  });
}

}  // namespace caravan::ops::cpu

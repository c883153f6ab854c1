// dw (+)= dy^T x by kernels of ours, where oneDNN is far behind what the processor can do.
#pragma once

#include "caravan/ops/context.h"
#include "caravan/ops/cpu/kernels/kernels.h"

namespace caravan::ops::cpu {

// Why oneDNN should serve a gradient of [out, in] from f32 factors; nullptr: ours is faster.
//
// oneDNN's f32 product for AVX2 turns dy in strips that fall on the same cache sets when its rows are a power of two
// apart, and has little work to hide that behind when x has few columns: [1024, 192] from 4096 tokens ran at 0.45 times
// the speed of other shapes, ours at 0.9 (bench/probe_cpu, linear_dw).
const char* refuse_narrow(const Context& ctx, std::int64_t out, std::int64_t in);

// Bytes of workspace.
std::int64_t narrow_workspace(const Context& ctx, std::int64_t out, std::int64_t in);
// On the context's threads.  The bits do not depend on how many there are.
void run_narrow(const Context& ctx, const NarrowWeightGrad& args, std::byte* workspace);

}  // namespace caravan::ops::cpu

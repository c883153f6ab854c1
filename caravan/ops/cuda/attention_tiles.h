// Attention by kernels of ours that take everything: any dtype, head_dim, stride and list of ranges.
#pragma once

#include "caravan/ops/args.h"

namespace caravan::ops::cuda {

std::int64_t tiles_workspace(Context& ctx, const AttentionArgs& args);
void prepare_tiles(Context& ctx, const AttentionArgs& args);
void run_tiles(Context& ctx, const AttentionArgs& args, std::byte* workspace);

std::int64_t tiles_grad_workspace(Context& ctx, const AttentionGradArgs& args);
void prepare_tiles_grad(Context& ctx, const AttentionGradArgs& args);
void run_tiles_grad(Context& ctx, const AttentionGradArgs& args, std::byte* workspace);

}  // namespace caravan::ops::cuda

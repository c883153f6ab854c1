// Attention of bf16 and f16 by cuDNN: causal sequences side by side, as training and prompts have them.
#pragma once

#include "caravan/ops/args.h"

namespace caravan::ops::cuda {

// Why cuDNN does not serve a call, or nullptr.  On a GPU its plans are made here, since it tells only then.
const char* refuse_cudnn(const Context& ctx, const AttentionArgs& args);
void prepare_cudnn(Context& ctx, const AttentionArgs& args);
std::int64_t cudnn_workspace(Context& ctx, const AttentionArgs& args);
void run_cudnn(Context& ctx, const AttentionArgs& args, std::byte* workspace);

const char* refuse_cudnn_grad(const Context& ctx, const AttentionGradArgs& args);
void prepare_cudnn_grad(Context& ctx, const AttentionGradArgs& args);
std::int64_t cudnn_grad_workspace(Context& ctx, const AttentionGradArgs& args);
void run_cudnn_grad(Context& ctx, const AttentionGradArgs& args, std::byte* workspace);

}  // namespace caravan::ops::cuda

// Which kernels of attention serve which case.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/attention_cudnn.h"
#include "caravan/ops/cuda/attention_tiles.h"

namespace caravan::ops::cuda {
namespace {

constexpr Implementation<AttentionArgs> kAttention[] = {
    {"cudnn", Backend::kCuda, Isa::kAvx2, refuse_cudnn, cudnn_workspace, run_cudnn, prepare_cudnn},
    {"tiles", Backend::kCuda, Isa::kAvx2, nullptr, tiles_workspace, run_tiles, prepare_tiles},
};
constexpr Implementation<AttentionGradArgs> kAttentionGrad[] = {
    {"cudnn", Backend::kCuda, Isa::kAvx2, refuse_cudnn_grad, cudnn_grad_workspace, run_cudnn_grad, prepare_cudnn_grad},
    {"tiles", Backend::kCuda, Isa::kAvx2, nullptr, tiles_grad_workspace, run_tiles_grad, prepare_tiles_grad},
};

}  // namespace

ImplementationList<AttentionArgs> attention_list() {
  return kAttention;
}

ImplementationList<AttentionGradArgs> attention_grad_list() {
  return kAttentionGrad;
}

}  // namespace caravan::ops::cuda

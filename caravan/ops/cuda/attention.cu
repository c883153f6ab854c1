// Which kernels of attention serve which case.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

ImplementationList<AttentionArgs> attention_list() {
  return {};
}

ImplementationList<AttentionGradArgs> attention_grad_list() {
  return {};
}

}  // namespace caravan::ops::cuda

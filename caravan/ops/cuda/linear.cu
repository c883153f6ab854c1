// Products by cuBLASLt, and the gradient of a bias.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

ImplementationList<LinearArgs> linear_list() {
  return {};
}

ImplementationList<LinearInputGradArgs> linear_input_grad_list() {
  return {};
}

ImplementationList<LinearWeightGradArgs> linear_weight_grad_list() {
  return {};
}

ImplementationList<BiasGradArgs> bias_grad_list() {
  return {};
}

}  // namespace caravan::ops::cuda

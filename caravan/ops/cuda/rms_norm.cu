// RMS normalisation and its gradients.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

ImplementationList<RmsNormArgs> rms_norm_list() {
  return {};
}

ImplementationList<RmsNormInputGradArgs> rms_norm_input_grad_list() {
  return {};
}

ImplementationList<RmsNormWeightGradArgs> rms_norm_weight_grad_list() {
  return {};
}

}  // namespace caravan::ops::cuda

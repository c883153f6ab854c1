// The gated activation.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

ImplementationList<SwigluArgs> swiglu_list() {
  return {};
}

ImplementationList<SwigluGradArgs> swiglu_grad_list() {
  return {};
}

}  // namespace caravan::ops::cuda

// AdamW and the norm of gradients.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

ImplementationList<AdamWArgs> adamw_list() {
  return {};
}

ImplementationList<SumOfSquaresArgs> sum_of_squares_list() {
  return {};
}

}  // namespace caravan::ops::cuda

// Rows of a table by id.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

ImplementationList<EmbeddingArgs> embedding_list() {
  return {};
}

ImplementationList<EmbeddingWeightGradArgs> embedding_weight_grad_list() {
  return {};
}

}  // namespace caravan::ops::cuda

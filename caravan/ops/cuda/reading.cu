// Reading memory and nothing else.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

ImplementationList<SumWordsArgs> sum_words_list() {
  return {};
}

}  // namespace caravan::ops::cuda

#include "caravan/ops/weight.h"

#include <utility>

namespace caravan::ops {

Weight::Weight(Tensor plain) : plain_(std::move(plain)), packed_(std::make_shared<std::map<std::string, Tensor>>()) {}

void Weight::changed() {
  if (packed_ != nullptr) {
    packed_->clear();
  }
}

}  // namespace caravan::ops

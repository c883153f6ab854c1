#include "caravan/ops/weight.h"

#include <utility>

#include "caravan/ops/context.h"
#include "caravan/ops/elementwise.h"

namespace caravan::ops {

Weight::Weight(Tensor plain)
    : source_(std::move(plain)),
      plain_(source_),
      dtype_(source_.dtype()),
      packed_(std::make_shared<std::map<std::string, PackedWeight>>()) {}

Weight Weight::rounded(Tensor master, DType dtype) {
  Weight weight(std::move(master));
  weight.dtype_ = dtype;
  if (weight.is_rounded()) {
    weight.plain_ = {};
  }
  return weight;
}

Tensor Weight::materialize(Context& ctx) const {
  if (plain_.defined()) {
    return plain_;
  }
  const Tensor copy = ctx.allocate(dtype_, source_.shape(), Segment::kWorkspace);
  convert(ctx, copy, source_);
  return copy;
}

Weight Weight::with_plain(Context& ctx) const {
  return is_rounded() ? Weight(materialize(ctx)) : *this;
}

void Weight::changed() {
  if (packed_ != nullptr) {
    packed_->clear();
  }
}

void Weight::release(WeightUse use) const {
  if (packed_ != nullptr) {
    std::erase_if(*packed_, [&](const auto& form) { return (form.second.uses & ~static_cast<unsigned>(use)) == 0; });
  }
}

}  // namespace caravan::ops

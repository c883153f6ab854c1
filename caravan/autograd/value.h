// What flows between layers: a tensor, and where its gradient will gather.
#pragma once

#include <cstdint>
#include <memory>

#include "caravan/tensor/tensor.h"

namespace caravan::ops {
struct Context;
}

namespace caravan::autograd {

// The tape's name for a value's gradient.  kNoSlot: no tape was running, or no gradient is wanted.
using Slot = std::int32_t;
inline constexpr Slot kNoSlot = -1;

// How a result is made again, to the bit, from tensors that its own node keeps anyway.  For results that cost one pass
// over memory: a consumer that needs its input in the backward keeps this instead of the tensor.
class Recipe {
 public:
  virtual ~Recipe() = default;
  virtual Tensor make(ops::Context& ctx) const = 0;
};

// Copying a Value shares the tensor; the memory goes back to the allocator with the last copy.
struct Value {
  Tensor tensor;
  Slot slot = kNoSlot;
  std::shared_ptr<const Recipe> recipe = nullptr;  // of `tensor`; nullptr: who needs it later keeps it
};

}  // namespace caravan::autograd

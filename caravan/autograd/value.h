// What flows between layers: a tensor, and where its gradient will gather.
#pragma once

#include <cstdint>

#include "caravan/tensor/tensor.h"

namespace caravan::autograd {

// The tape's name for a value's gradient.  kNoSlot: no tape was running, or no gradient is wanted.
using Slot = std::int32_t;
inline constexpr Slot kNoSlot = -1;

// Copying a Value shares the tensor; the memory goes back to the allocator with the last copy.
struct Value {
  Tensor tensor;
  Slot slot = kNoSlot;
};

}  // namespace caravan::autograd

// Random values where they are wanted.
#pragma once

#include "caravan/base/philox.h"
#include "caravan/ops/context.h"

namespace caravan::ops {

// y[i] = deviation * stream.normal(first + i), rounded to f32 and then to y's dtype (f64 holds the f32 value): the same bits
// on every backend.  y: contiguous, any compute float dtype.  Throws ShapeError otherwise.
void random_normal(Context& ctx, const Tensor& y, const RandomStream& stream, std::uint64_t first, double deviation);

}  // namespace caravan::ops

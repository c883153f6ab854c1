// Sums, copies and conversions of whole tensors.
#pragma once

#include "caravan/ops/context.h"

namespace caravan::ops {

// y = a + b.  One shape, one compute float dtype, one rounding.  Any of them may be column ranges; y may alias a or b.
// Throws ShapeError when shapes or dtypes differ.
void add(Context& ctx, const Tensor& y, const Tensor& a, const Tensor& b);

// y = x in y's dtype, rounded to nearest even: masters to compute views.  One shape; f64, f32, bf16 or f16 on both
// sides; may be column ranges.  Throws ShapeError when shapes differ or a dtype is none of these.
void convert(Context& ctx, const Tensor& y, const Tensor& x);

// y = 0 in every element.  Any dtype.
void zero(Context& ctx, const Tensor& y);

}  // namespace caravan::ops

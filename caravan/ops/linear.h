// The product of activations with a weight.
//
//   y = x W^T (+ bias) (+ residual)
//
// Sums run in f32 (f64 on the reference) and are rounded once, at the end, after bias and residual.
#pragma once

#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::ops {

// x: [tokens, in].  w: [out, in].  bias: [out] or undefined.  residual: [tokens, out] or undefined; may alias y.
// y: [tokens, out], x's dtype, or f32 when x is bf16 or f16 (logits).  x, w, bias and residual have one compute float
// dtype (with y in f32, residual is f32 too).  y must not alias x.  x, residual and y may be column ranges.  Zero
// tokens is fine. Row i of y depends on row i of x (and residual) alone.  Throws ShapeError when shapes or dtypes break
// this.
void linear(Context& ctx, const Tensor& y, const Tensor& x, const Weight& w, const Tensor& bias = {},
            const Tensor& residual = {});

}  // namespace caravan::ops

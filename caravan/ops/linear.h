// The product of activations with a weight.
//
//   y = x W^T (+ bias) (+ residual)
//
// Sums run in f32 (f64 on the reference) and are rounded once, at the end, after bias and residual.  On a GPU
// cuBLASLt may round to a 16-bit y before it adds the residual and again before the bias, as ops of their own would.
#pragma once

#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::ops {

// x: [tokens, in].  w: [out, in].  bias: [out] or undefined.  residual: [tokens, out] or undefined; may alias y.
// y: [tokens, out], x's dtype, or f32 when x is bf16 or f16 (logits).  x, w, bias and residual have one compute float
// dtype (with y in f32, residual is f32 too).  y must not alias x.  x, residual and y may be column ranges.  Zero
// tokens is fine.  w may stand in blocks (Weight::in_blocks): with few tokens codes are multiplied as they are, by
// activations that are rounded to 8 bits in groups of 32, each group in steps of 1/127 of its largest magnitude; with
// more, blocks become numbers of x's dtype, or bf16 where the processor multiplies those, and so does x.  Row i of y depends on row i of x (and residual) alone.  Throws ShapeError when shapes or dtypes break
// this.
void linear(Context& ctx, const Tensor& y, const Tensor& x, const Weight& w, const Tensor& bias = {},
            const Tensor& residual = {});

// dx = dy W  (+ dx when adding).  dy: [tokens, out].  w: [out, in].  dx: [tokens, in], dy's dtype.  One compute float
// dtype; dy and dx may be column ranges; dx must not alias dy.  Sums run in f32 (f64 on the reference), one rounding.
// Throws ShapeError when shapes or dtypes break this, or w stands in blocks.
void linear_input_grad(Context& ctx, const Tensor& dx, const Tensor& dy, const Weight& w, Accumulate accumulate);

// dw = dy^T x  (+ dw when adding).  dy: [tokens, out].  x: [tokens, in], dy's dtype; both may be column ranges.
// dw: [out, in], contiguous, f32 (f64 when dy is f64).  With no tokens, kStore writes zeros.
// Throws ShapeError when shapes or dtypes break this.
void linear_weight_grad(Context& ctx, const Tensor& dw, const Tensor& dy, const Tensor& x, Accumulate accumulate);

// db = sum over tokens of dy  (+ db when adding).  dy: [tokens, out].  db: [out], f32 (f64 when dy is f64).  The sum is
// taken in an order that depends on the shape alone.  Throws ShapeError when shapes or dtypes break this.
void bias_grad(Context& ctx, const Tensor& db, const Tensor& dy, Accumulate accumulate);

}  // namespace caravan::ops

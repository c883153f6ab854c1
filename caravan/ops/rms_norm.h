// RMS normalisation over the last axis.
//
//   y = x / rms(x) * w,   rms(x) = sqrt(mean(x^2) + eps)                     Zhang & Sennrich 2019, eq. 4
//
// Two roundings exist in the field and both are needed for parity:
//   kHuggingFace  x / rms is rounded to x's dtype before it meets w          transformers LlamaRMSNorm
//   kFused        one rounding at the end                                    TransformerEngine, torch nn.RMSNorm
#pragma once

#include "caravan/ops/context.h"

namespace caravan::ops {

enum class NormRounding { kHuggingFace, kFused };

// x, y: [tokens, features], any compute float dtype, same dtype; may be column ranges.  w: [features], same dtype.
// rstd: [tokens], f32 (f64 when x is f64), 1 / rms(x), kept for the backward; undefined when nobody wants it.
// y may alias x.  Zero tokens is fine.  Throws ShapeError when features or dtypes differ.
void rms_norm(Context& ctx, const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w, double eps,
              NormRounding rounding);

// The gradient of x, with r = rstd and n features:
//   dx = r (g - x r^2 mean(g x)),   g = dy * w
// (the rounding between x / rms and w is passed through, as autograd does in both conventions).
// dy, x, dx: [tokens, features], one compute float dtype; may be column ranges; dx may alias dy when storing.
// rstd: [tokens] as rms_norm left it.  Throws ShapeError when shapes or dtypes break this.
void rms_norm_input_grad(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& rstd,
                         const Tensor& w, Accumulate accumulate);

// dw = sum over tokens of dy * x * rstd  (+ dw when adding); under kHuggingFace x * rstd is rounded to x's dtype first,
// as the forward did.  dw: [features], f32 (f64 when x is f64).  The order of the sum depends on the shape alone.
// Throws ShapeError when shapes or dtypes break this.
void rms_norm_weight_grad(Context& ctx, const Tensor& dw, const Tensor& dy, const Tensor& x, const Tensor& rstd,
                          NormRounding rounding, Accumulate accumulate);

}  // namespace caravan::ops

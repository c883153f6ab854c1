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

}  // namespace caravan::ops

// The gated activation of Llama's feed-forward (Shazeer 2020):  y = silu(gate) * up,  silu(z) = z / (1 + exp(-z)).
#pragma once

#include "caravan/ops/context.h"

namespace caravan::ops {

// gate_up: [tokens, 2 * features], gate in the first half of a row, up in the second; any compute float dtype; may be a
// column range.  y: [tokens, features], same dtype.  y must not alias gate_up.  One rounding, at the end.
// Throws ShapeError when shapes or dtypes differ.
void swiglu(Context& ctx, const Tensor& y, const Tensor& gate_up);

// The gradient of gate and up, with s = sigmoid(gate):
//   d_gate = dy * up * s (1 + gate (1 - s)),   d_up = dy * gate * s
// dy: [tokens, features].  gate_up, d_gate_up: [tokens, 2 * features]; may be column ranges; d_gate_up may alias
// gate_up.  One dtype, one rounding.  Throws ShapeError when shapes or dtypes differ.
void swiglu_grad(Context& ctx, const Tensor& d_gate_up, const Tensor& dy, const Tensor& gate_up);

}  // namespace caravan::ops

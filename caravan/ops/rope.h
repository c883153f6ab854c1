// Rotary position embedding (Su et al. 2021).
//
//   angle[t, i] = position[t] * frequency[i],  i in [0, head_dim / 2)
//   (a, b) -> (a cos - b sin, b cos + a sin)   for each pair of a head's elements
//
// Which elements make a pair is the pairing:
//   kRotateHalf    (i, i + head_dim / 2)      Hugging Face Llama, TransformerEngine
//   kInterleaved   (2 i, 2 i + 1)             Meta's checkpoints, torchtitan, Llama 4
#pragma once

#include "caravan/ops/context.h"

namespace caravan::ops {

enum class RopePairing { kRotateHalf, kInterleaved };

// cos, sin: [tokens, head_dim / 2] f32 (f64 for f64 models).  positions: [tokens] i32, negative for padding, which gets
// cos 1 and sin 0.  frequencies: [kinds, head_dim / 2] f32.  kind: [tokens] i32, the row of frequencies each token uses
// (sequences of unlike length differ under dynamic and longrope scaling).
// As transformers does, whatever the dtype of the model: the angle is a product in f32; cos and sin of it are rounded
// to f32, multiplied by `attention_scaling` in f32 and rounded to `rounded_to` (f32 and f64 leave them; Hugging Face
// rounds to the activations' dtype).  Tables in f64 hold those same values, widened.
// Throws ShapeError when shapes or dtypes break this, or when a token's kind is not a row of frequencies.
void rope_tables(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& positions, const Tensor& frequencies,
                 const Tensor& kind, double attention_scaling, DType rounded_to);

// y = rotation of x.  x, y: [tokens, heads * head_dim], any compute float dtype, same dtype; may be column ranges; y
// may be x. cos, sin: as rope_tables made them; head_dim is twice their columns.  Products and sums are rounded once,
// at the end. `inverse` turns by the negative angle: the gradient.
// Throws ShapeError when the columns are not whole heads or dtypes do not match.
void rope(Context& ctx, const Tensor& y, const Tensor& x, const Tensor& cos, const Tensor& sin, RopePairing pairing,
          bool inverse = false);

}  // namespace caravan::ops

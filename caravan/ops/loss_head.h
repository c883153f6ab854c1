// The last product and the cross entropy in one op, chunk by chunk over the tokens: logits of [tokens, vocab] never
// exist.
//
//   nll[t] = log sum_v exp(logit[t, v]) - logit[t, target[t]],   logit = hidden W^T        transformers ForCausalLMLoss
#pragma once

#include "caravan/layout/micro_batch.h"
#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::ops {

// A target that counts for nothing (torch's ignore_index).
using caravan::kIgnoredTarget;

// token_nll: [tokens] f32 (f64 when hidden is f64), 0 where the target is ignored.  hidden: [tokens, features], any
// compute float dtype; may be a column range.  w: [vocab, features], same dtype.  targets: [tokens] i32, kIgnoredTarget
// or in [0, vocab). Logits are f32 (f64 for f64).  Rows with an ignored target are not computed and may hold NaN.
// Throws ShapeError when shapes or dtypes differ, InputError when a target is outside the vocabulary.
void loss_head(Context& ctx, const Tensor& token_nll, const Tensor& hidden, const Weight& w, const Tensor& targets);

// The same with its gradients, made in the one pass over the logits:
//   d_hidden = scale (softmax(logit) - onehot(target)) W,   dw += scale (softmax(logit) - onehot(target))^T hidden
// so that the loss's scale (1 over the valid targets of the whole global batch) must be known before the forward pass.
// scale (softmax - onehot) is f32, or bf16 where bf16 is multiplied as it stands: it is a factor of both products.
// d_hidden: [tokens, features], hidden's dtype, 0 where the target is ignored.  dw: [vocab, features], f32 (f64 when
// hidden is f64), added to; undefined when the weight is not trained.  Otherwise as loss_head.
void loss_head_with_grad(Context& ctx, const Tensor& token_nll, const Tensor& d_hidden, const Tensor& dw,
                         const Tensor& hidden, const Weight& w, const Tensor& targets, double scale);

}  // namespace caravan::ops

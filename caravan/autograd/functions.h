// The ops as layers use them: each allocates its result, runs forward and, when the context has a tape, notes how to go
// back.
//
// Shapes are those of the op headers.  `plus` is a residual, added in the product's own epilogue.
#pragma once

#include <functional>

#include "caravan/autograd/context.h"
#include "caravan/autograd/parameter.h"
#include "caravan/autograd/value.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/loss_head.h"
#include "caravan/ops/rms_norm.h"
#include "caravan/ops/rope.h"

namespace caravan::autograd {

// ids: [tokens] i32.  Result: [tokens, hidden].  The row of padding_id gets no gradient here (torch's padding_idx; -1:
// none).
Value embedding(Context& ctx, const Parameter& table, const Tensor& ids, std::int64_t padding_id = -1);

// x: [tokens, in].  bias: nullptr or [out].  plus: nullptr or [tokens, out].  Result: [tokens, out] in x's dtype.
Value linear(Context& ctx, const Value& x, const Parameter& weight, const Parameter* bias, const Value* plus = nullptr);

// x: [tokens, features].  Result: the same shape.
Value rms_norm(Context& ctx, const Value& x, const Parameter& weight, double eps, ops::NormRounding rounding);

// Turns the query and key columns of a fused product, in place.  qkv: [tokens, (heads + 2 kv_heads) head_dim].
Value rope_in_place(Context& ctx, Value qkv, const RotaryTables& tables, const ops::HeadShape& heads,
                    ops::RopePairing pairing);

// qkv: [tokens, (heads + 2 kv_heads) head_dim], query columns first, then key, then value.  Result: [tokens, heads
// head_dim].
Value attention(Context& ctx, const Value& qkv, const ops::HeadShape& heads, const std::vector<AttentionRange>& ranges,
                double scale);

// The same through ctx.cache: it keeps the new keys and values as those of `layer`, and the queries see what it
// answers. Throws ShapeError when there is a tape.
Value cached_attention(Context& ctx, int layer, const Value& qkv, const ops::HeadShape& heads, double scale);

// gate_up: [tokens, 2 features].  Result: [tokens, features].
Value swiglu(Context& ctx, const Value& gate_up);

// hidden: [tokens, features].  targets: [tokens] i32.  Result: [tokens] negative log likelihoods, 0 where ignored.
// With a tape the gradients of scale * sum(result) are made here and now: scale is 1 over the valid targets of the
// whole global batch.  Without one it means nothing.
Value loss_head(Context& ctx, const Value& hidden, const Parameter& weight, const Tensor& targets, double scale = 1.0);

// Runs body(ctx, x), a part of the model that depends on x and parameters alone, as a checkpointed segment: inside,
// results are kept as ctx.checkpointing says for `layer`, and the backward computes the others again.  Without a tape,
// or where the policy does not checkpoint the layer, it is body(ctx, x).  The weight gradients of a segment are made
// right after its input gradients: deferring them would keep all that was computed again alive.
Value segment(Context& ctx, std::int64_t layer, const Value& x,
              const std::function<Value(Context&, const Value&)>& body);

}  // namespace caravan::autograd

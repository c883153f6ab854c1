#include "caravan/autograd/nodes.h"

#include <utility>

#include "caravan/ops/elementwise.h"
#include "caravan/ops/embedding.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/swiglu.h"

namespace caravan::autograd {

namespace {

using ops::Accumulate;

bool trained(const Parameter* parameter) {
  return parameter != nullptr && parameter->gradient.defined();
}

// The gradient in memory that nobody else reads, so that it may be changed.
Tensor own(Context& ctx, Tensor gradient) {
  if (gradient.owner().use_count() == 1) {
    return gradient;
  }
  const Tensor copy = ctx.ops.allocate(gradient.dtype(), gradient.shape());
  ops::convert(ctx.ops, copy, gradient);
  return copy;
}

struct Columns {
  Tensor query, key, value;
};

Columns columns_of(const Tensor& qkv, const ops::HeadShape& heads) {
  const std::int64_t query = heads.heads * heads.head_dim;
  const std::int64_t kv = heads.kv_heads * heads.head_dim;
  return {qkv.column_range(0, query), qkv.column_range(query, query + kv),
          qkv.column_range(query + kv, query + 2 * kv)};
}

}  // namespace

double linear_flops(double tokens, const Parameter& weight) {
  return 2.0 * tokens * static_cast<double>(weight.spec.shape.elements());
}

double attention_flops(const ops::HeadShape& heads, const std::vector<AttentionRange>& ranges) {
  // Two products over the pairs that the ranges let through.
  return 4.0 * static_cast<double>(visible_pairs(ranges)) * static_cast<double>(heads.heads * heads.head_dim);
}

void LinearNode::input_grad(Context& ctx, Tape& tape) {
  dy = tape.take(y_slot);
  if (!dy.defined() || !trained(weight)) {
    x = {};
    recipe = nullptr;
  }
  if (!dy.defined()) {
    return;
  }
  tape.pass_on(plus_slot, dy);
  if (Tape::wanted(x_slot)) {
    const GradientTarget dx = tape.target(x_slot, dy.dtype(), {dy.rows(), weight->spec.shape[1]});
    ops::linear_input_grad(ctx.ops, dx.tensor, dy, weight->weight, dx.accumulate);
  }
  if (!trained(weight) && !trained(bias)) {
    dy = {};
  }
}

void LinearNode::weight_grad(Context& ctx) {
  if (!dy.defined()) {
    return;
  }
  if (trained(weight)) {
    if (recipe != nullptr) {
      x = recipe->make(ctx.ops);
    }
    ops::linear_weight_grad(ctx.ops, weight->gradient, dy, x, Accumulate::kAdd);
  }
  if (trained(bias)) {
    ops::bias_grad(ctx.ops, bias->gradient, dy, Accumulate::kAdd);
  }
  x = {};
  recipe = nullptr;
  dy = {};
}

Cost LinearNode::cost() const {
  const double flops = linear_flops(tokens, *weight);
  return {flops, Tape::wanted(x_slot) ? flops : 0.0, trained(weight) ? flops : 0.0, bytes};
}

void RmsNormNode::input_grad(Context& ctx, Tape& tape) {
  dy = tape.take(y_slot);
  if (dy.defined() && Tape::wanted(x_slot)) {
    const GradientTarget dx = tape.target(x_slot, x.dtype(), x.shape());
    ops::rms_norm_input_grad(ctx.ops, dx.tensor, dy, x, rstd, weight->tensor(), dx.accumulate);
  }
  if (!dy.defined() || !trained(weight)) {
    x = rstd = dy = {};
  }
}

void RmsNormNode::weight_grad(Context& ctx) {
  if (dy.defined()) {
    ops::rms_norm_weight_grad(ctx.ops, weight->gradient, dy, x, rstd, rounding, Accumulate::kAdd);
  }
  x = rstd = dy = {};
}

void RopeNode::input_grad(Context& ctx, Tape& tape) {
  if (Tensor dy = tape.take(y_slot); dy.defined()) {
    const Tensor dx = own(ctx, std::move(dy));
    const Tensor turned = dx.column_range(0, columns);
    ops::rope(ctx.ops, turned, turned, tables.cos, tables.sin, pairing, /*inverse=*/true);
    tape.pass_on(x_slot, dx);
  }
  tables = {};
}

void AttentionNode::input_grad(Context& ctx, Tape& tape) {
  if (const Tensor dy = tape.take(y_slot); dy.defined() && Tape::wanted(qkv_slot)) {
    const Tensor d_qkv = ctx.ops.allocate(qkv.dtype(), qkv.shape());
    const Columns gradients = columns_of(d_qkv, heads);
    const Columns inputs = columns_of(qkv, heads);
    ops::attention_grad(ctx.ops, gradients.query, gradients.key, gradients.value, dy, inputs.query, inputs.key,
                        inputs.value, out, lse, heads, ranges, scale);
    tape.pass_on(qkv_slot, d_qkv);
  }
  qkv = out = lse = {};
}

Cost AttentionNode::cost() const {
  const double flops = attention_flops(heads, ranges);
  // Five products: the scores again, d_value, d_out value^T, d_query and d_key.
  return {flops, 2.5 * flops, 0.0, bytes};
}

void SwigluNode::input_grad(Context& ctx, Tape& tape) {
  if (const Tensor dy = tape.take(y_slot); dy.defined() && Tape::wanted(gate_up_slot)) {
    const bool reuse = gate_up.owner().use_count() == 1;
    const Tensor gradient = reuse ? gate_up : ctx.ops.allocate(gate_up.dtype(), gate_up.shape());
    ops::swiglu_grad(ctx.ops, gradient, dy, gate_up);
    gate_up = {};
    tape.pass_on(gate_up_slot, gradient);
  }
  gate_up = {};
}

void EmbeddingNode::input_grad(Context& /*ctx*/, Tape& tape) {
  dy = tape.take(y_slot);
  if (!dy.defined() || !trained(table)) {
    ids = dy = {};
  }
}

void EmbeddingNode::weight_grad(Context& ctx) {
  if (dy.defined()) {
    ops::embedding_weight_grad(ctx.ops, table->gradient, dy, ids, padding_id);
  }
  ids = dy = {};
}

void LossHeadNode::input_grad(Context& /*ctx*/, Tape& tape) {
  tape.pass_on(hidden_slot, std::exchange(d_hidden, Tensor()));
}

Cost LossHeadNode::cost() const {
  // All three products run in the forward pass.
  return {3.0 * linear_flops(counted_tokens, *weight), 0.0, 0.0, bytes};
}

bool SegmentRecord::keeps_memory_of(const Tensor& tensor) const {
  for (const std::vector<Tensor>& results : kept) {
    for (const Tensor& one : results) {
      if (one.owner() == tensor.owner()) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace caravan::autograd

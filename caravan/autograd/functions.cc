#include "caravan/autograd/functions.h"

#include <initializer_list>
#include <memory>
#include <utility>

#include "caravan/autograd/nodes.h"
#include "caravan/base/error.h"
#include "caravan/ops/decoding.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/embedding.h"
#include "caravan/ops/swiglu.h"

namespace caravan::autograd {

namespace {

// The results of an op: computed by `make` and kept where the running segment's policy says so, or what it kept before.
template <typename Make>
std::vector<Tensor> results_of(Context& ctx, const char* op, bool product, double flops, const Make& make) {
  SegmentRecord* segment = ctx.segment;
  bool kept = false;
  if (segment != nullptr) {
    segment->products += product ? 1 : 0;
    kept = keeps(*segment->policy, op, product ? segment->products : 0);
    if (kept && segment->replaying) {
      return segment->kept.at(segment->next++);
    }
  }
  std::vector<Tensor> results = make();
  ctx.flops += flops;
  if (kept) {
    segment->kept.push_back(results);
  }
  return results;
}

struct QueryKeyValue {
  Tensor query, key, value;
};

QueryKeyValue parts_of(const Tensor& qkv, const ops::HeadShape& heads) {
  const std::int64_t query = heads.heads * heads.head_dim;
  const std::int64_t key = query + heads.kv_heads * heads.head_dim;
  return {qkv.column_range(0, query), qkv.column_range(query, key),
          qkv.column_range(key, key + heads.kv_heads * heads.head_dim)};
}

// A value whose gradient the tape will gather, when there is a tape.
Value recorded(Context& ctx, const Tensor& tensor) {
  return {tensor, ctx.tape == nullptr ? kNoSlot : ctx.tape->new_slot()};
}

// That a product reads.
double weight_bytes(const Parameter& weight) {
  return static_cast<double>(weight.spec.shape.elements()) * static_cast<double>(size_of(weight.weight.dtype()));
}

// Bytes of all of them; an undefined tensor has none.
double bytes_of(std::initializer_list<Tensor> tensors) {
  double bytes = 0.0;
  for (const Tensor& tensor : tensors) {
    bytes += tensor.defined() ? static_cast<double>(tensor.bytes()) : 0.0;
  }
  return bytes;
}

struct RmsNormRecipe final : Recipe {
  Tensor x, weight;
  double eps = 0.0;
  ops::NormRounding rounding = ops::NormRounding::kHuggingFace;

  Tensor make(ops::Context& ctx) const override {
    const Tensor y = ctx.allocate(x.dtype(), x.shape());
    ops::rms_norm(ctx, y, Tensor(), x, weight, eps, rounding);
    return y;
  }
};

struct SwigluRecipe final : Recipe {
  Tensor gate_up;

  Tensor make(ops::Context& ctx) const override {
    const Tensor y = ctx.allocate(gate_up.dtype(), {gate_up.rows(), gate_up.columns() / 2});
    ops::swiglu(ctx, y, gate_up);
    return y;
  }
};

Tensor float_per_row(Context& ctx, DType activations, const Shape& shape) {
  return ctx.ops.allocate(activations == DType::kF64 ? DType::kF64 : DType::kF32, shape);
}

}  // namespace

Value embedding(Context& ctx, const Parameter& table, const Tensor& ids, std::int64_t padding_id) {
  const Tensor tensor = ctx.ops.allocate(table.weight.dtype(), {ids.rows(), table.weight.shape()[1]});
  ops::embedding(ctx.ops, tensor, table.weight, ids);
  const Value y = recorded(ctx, tensor);
  if (ctx.tape != nullptr) {
    auto node = std::make_unique<EmbeddingNode>();
    node->bytes = bytes_of({ids, tensor, tensor});
    node->ids = ids;
    node->table = &table;
    node->padding_id = padding_id;
    node->y_slot = y.slot;
    ctx.tape->record(std::move(node));
  }
  return y;
}

Value linear(Context& ctx, const Value& x, const Parameter& weight, const Parameter* bias, const Value* plus) {
  const auto tokens = static_cast<double>(x.tensor.rows());
  const std::vector<Tensor> results = results_of(ctx, "linear", true, linear_flops(tokens, weight), [&] {
    const Tensor y = ctx.ops.allocate(x.tensor.dtype(), {x.tensor.rows(), weight.weight.shape()[0]});
    ops::linear(ctx.ops, y, x.tensor, weight.weight, bias == nullptr ? Tensor() : bias->tensor(),
                plus == nullptr ? Tensor() : plus->tensor);
    return std::vector<Tensor>{y};
  });
  const Value y = recorded(ctx, results[0]);
  if (ctx.tape != nullptr) {
    auto node = std::make_unique<LinearNode>();
    node->bytes = weight_bytes(weight) + bytes_of({x.tensor, bias == nullptr ? Tensor() : bias->tensor(),
                                                   plus == nullptr ? Tensor() : plus->tensor, y.tensor});
    node->x = x.recipe == nullptr ? x.tensor : Tensor();
    node->recipe = x.recipe;
    node->weight = &weight;
    node->bias = bias;
    node->x_slot = x.slot;
    node->plus_slot = plus == nullptr ? kNoSlot : plus->slot;
    node->y_slot = y.slot;
    node->tokens = tokens;
    ctx.tape->record(std::move(node));
  }
  return y;
}

Value rms_norm(Context& ctx, const Value& x, const Parameter& weight, double eps, ops::NormRounding rounding) {
  const std::vector<Tensor> results = results_of(ctx, "rms_norm", false, 0.0, [&] {
    const Tensor y = ctx.ops.allocate(x.tensor.dtype(), x.tensor.shape());
    const Tensor rstd =
        ctx.tape == nullptr && ctx.segment == nullptr ? Tensor() : float_per_row(ctx, y.dtype(), {y.rows()});
    ops::rms_norm(ctx.ops, y, rstd, x.tensor, weight.tensor(), eps, rounding);
    return std::vector<Tensor>{y, rstd};
  });
  Value y = recorded(ctx, results[0]);
  if (ctx.tape != nullptr) {
    auto recipe = std::make_shared<RmsNormRecipe>();
    recipe->x = x.tensor;
    recipe->weight = weight.tensor();
    recipe->eps = eps;
    recipe->rounding = rounding;
    y.recipe = std::move(recipe);
    auto node = std::make_unique<RmsNormNode>();
    node->bytes = bytes_of({x.tensor, weight.tensor(), y.tensor, results[1]});
    node->x = x.tensor;
    node->rstd = results[1];
    node->weight = &weight;
    node->rounding = rounding;
    node->x_slot = x.slot;
    node->y_slot = y.slot;
    ctx.tape->record(std::move(node));
  }
  return y;
}

Value rope_in_place(Context& ctx, Value qkv, const RotaryTables& tables, const ops::HeadShape& heads,
                    ops::RopePairing pairing) {
  if (ctx.segment != nullptr && ctx.segment->keeps_memory_of(qkv.tensor)) {
    // The product before it is kept for the recomputation, which will turn it again.
    const Tensor copy = ctx.ops.allocate(qkv.tensor.dtype(), qkv.tensor.shape());
    ops::convert(ctx.ops, copy, qkv.tensor);
    qkv.tensor = copy;
  }
  // Query and key heads are neighbours and turn alike, so both are one call.
  const std::int64_t columns = (heads.heads + heads.kv_heads) * heads.head_dim;
  const Tensor turned = qkv.tensor.column_range(0, columns);
  ops::rope(ctx.ops, turned, turned, tables.cos, tables.sin, pairing);
  const Value y = recorded(ctx, qkv.tensor);
  if (ctx.tape != nullptr) {
    auto node = std::make_unique<RopeNode>();
    node->bytes = bytes_of({turned, turned, tables.cos, tables.sin});
    node->tables = tables;
    node->columns = columns;
    node->pairing = pairing;
    node->x_slot = qkv.slot;
    node->y_slot = y.slot;
    ctx.tape->record(std::move(node));
  }
  return y;
}

Value attention(Context& ctx, const Value& qkv, const ops::HeadShape& heads, const std::vector<AttentionRange>& ranges,
                double scale) {
  const std::vector<Tensor> results = results_of(ctx, "attention", false, attention_flops(heads, ranges), [&] {
    const auto [query, key, value] = parts_of(qkv.tensor, heads);
    const Tensor out = ctx.ops.allocate(qkv.tensor.dtype(), query.shape());
    const Tensor lse = ctx.tape == nullptr && ctx.segment == nullptr
                           ? Tensor()
                           : float_per_row(ctx, out.dtype(), {out.rows(), heads.heads});
    ops::attention(ctx.ops, out, lse, query, key, value, heads, ranges, scale);
    return std::vector<Tensor>{out, lse};
  });
  const Value y = recorded(ctx, results[0]);
  if (ctx.tape != nullptr) {
    auto node = std::make_unique<AttentionNode>();
    node->bytes = bytes_of({qkv.tensor, results[0], results[1]});
    node->qkv = qkv.tensor;
    node->out = results[0];
    node->lse = results[1];
    node->heads = heads;
    node->ranges = ranges;
    node->scale = scale;
    node->qkv_slot = qkv.slot;
    node->y_slot = y.slot;
    ctx.tape->record(std::move(node));
  }
  return y;
}

Value cached_attention(Context& ctx, int layer, const Value& qkv, const ops::HeadShape& heads, double scale) {
  if (ctx.tape != nullptr) {
    throw ShapeError("cached_attention: a cache keeps no gradients; a pass has a cache or a tape, not both");
  }
  const auto [query, key, value] = parts_of(qkv.tensor, heads);
  const KvCache::View seen = ctx.cache->extend(ctx.ops, layer, ctx.layout, key, value);
  const Tensor out = ctx.ops.allocate(qkv.tensor.dtype(), query.shape());
  if (seen.lengths.defined()) {
    ops::cached_attention(ctx.ops, out, query, seen.key, seen.value, heads, seen.begins, seen.lengths, seen.max_length,
                          scale);
    return {out};
  }
  ops::attention(ctx.ops, out, Tensor(), query, seen.key, seen.value, heads, seen.ranges, scale);
  ctx.flops += attention_flops(heads, seen.ranges);
  return {out};
}

Value swiglu(Context& ctx, const Value& gate_up) {
  const std::vector<Tensor> results = results_of(ctx, "swiglu", false, 0.0, [&] {
    const Tensor y = ctx.ops.allocate(gate_up.tensor.dtype(), {gate_up.tensor.rows(), gate_up.tensor.columns() / 2});
    ops::swiglu(ctx.ops, y, gate_up.tensor);
    return std::vector<Tensor>{y};
  });
  Value y = recorded(ctx, results[0]);
  if (ctx.tape != nullptr) {
    auto recipe = std::make_shared<SwigluRecipe>();
    recipe->gate_up = gate_up.tensor;
    y.recipe = std::move(recipe);
    auto node = std::make_unique<SwigluNode>();
    node->bytes = bytes_of({gate_up.tensor, y.tensor});
    node->gate_up = gate_up.tensor;
    node->gate_up_slot = gate_up.slot;
    node->y_slot = y.slot;
    ctx.tape->record(std::move(node));
  }
  return y;
}

Value loss_head(Context& ctx, const Value& hidden, const Parameter& weight, const Tensor& targets, double scale) {
  const Tensor token_nll = float_per_row(ctx, hidden.tensor.dtype(), {hidden.tensor.rows()});
  const double flops = linear_flops(static_cast<double>(hidden.tensor.rows()), weight);
  if (ctx.tape == nullptr) {
    ops::loss_head(ctx.ops, token_nll, hidden.tensor, weight.weight, targets);
    ctx.flops += flops;
    return {token_nll};
  }
  auto node = std::make_unique<LossHeadNode>();
  node->bytes = bytes_of({hidden.tensor, hidden.tensor, weight.tensor(), weight.gradient, targets, token_nll});
  node->d_hidden = ctx.ops.allocate(hidden.tensor.dtype(), hidden.tensor.shape());
  ops::loss_head_with_grad(ctx.ops, token_nll, node->d_hidden, weight.gradient, hidden.tensor, weight.weight, targets,
                           scale);
  ctx.flops += 3.0 * flops;
  node->weight = &weight;
  node->hidden_slot = hidden.slot;
  node->counted_tokens = static_cast<double>(hidden.tensor.rows());
  ctx.tape->record(std::move(node));
  return {token_nll};
}

}  // namespace caravan::autograd

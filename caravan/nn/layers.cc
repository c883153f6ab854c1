#include "caravan/nn/layers.h"

#include <cmath>
#include <map>
#include <span>
#include <vector>

#include "caravan/tensor/copy.h"

namespace caravan::nn {

namespace {

// The distinct frequency vectors of a layout, and which of them each row uses.
struct RowFrequencies {
  std::vector<float> frequencies;  // [kinds, head_dim / 2]
  std::vector<std::int32_t> kind;  // [rows]
  std::int64_t kinds = 0;
};

RowFrequencies frequencies_by_row(const Rope& rope, const SequenceLayout& layout) {
  RowFrequencies result;
  result.kind.assign(static_cast<std::size_t>(layout.rows), 0);
  std::map<std::vector<float>, std::int32_t> known;
  const auto kind_of = [&](std::int64_t length) {
    const std::vector<float> frequencies = rope_frequencies(rope.config, rope.head_dim, length);
    const auto [found, is_new] = known.emplace(frequencies, static_cast<std::int32_t>(known.size()));
    if (is_new) {
      result.frequencies.insert(result.frequencies.end(), frequencies.begin(), frequencies.end());
      ++result.kinds;
    }
    return found->second;
  };
  if (layout.sequences.empty() || !depends_on_length(rope.config.kind)) {
    kind_of(longest(layout));
    return result;
  }
  for (const Sequence& sequence : layout.sequences) {
    const std::int32_t kind = kind_of(sequence.first_position + sequence.length);
    for (std::int64_t row = sequence.begin; row < sequence.begin + sequence.length; ++row) {
      result.kind[static_cast<std::size_t>(row)] = kind;
    }
  }
  return result;
}

}  // namespace

Value Linear::forward(Context& ctx, const Value& x, const Value* plus) const {
  return autograd::linear(ctx, x, *weight, bias, plus);
}

Value RmsNorm::forward(Context& ctx, const Value& x) const {
  return autograd::rms_norm(ctx, x, *weight, eps, rounding);
}

const autograd::RotaryTables& Rope::tables(Context& ctx, DType activations) const {
  const auto found = ctx.rotary.find({this, activations});
  if (found != ctx.rotary.end()) {
    return found->second;
  }
  const RowFrequencies rows = frequencies_by_row(*this, ctx.layout);
  const Tensor frequencies = to_device(*ctx.ops.allocator, rows.frequencies, {rows.kinds, head_dim / 2});
  const Tensor kind = to_device(*ctx.ops.allocator, rows.kind);
  const Tensor positions = to_device(*ctx.ops.allocator, caravan::positions(ctx.layout));

  const DType table_dtype = activations == DType::kF64 ? DType::kF64 : DType::kF32;
  const autograd::RotaryTables tables{ctx.ops.allocate(table_dtype, {ctx.layout.rows, head_dim / 2}),
                                      ctx.ops.allocate(table_dtype, {ctx.layout.rows, head_dim / 2})};
  ops::rope_tables(ctx.ops, tables.cos, tables.sin, positions, frequencies, kind, rope_attention_scaling(config),
                   rounding == RopeRounding::kActivation ? activations : table_dtype);
  return ctx.rotary.emplace(std::pair{this, activations}, tables).first->second;
}

Value Attention::forward(Context& ctx, const Value& x, const Value& plus) const {
  Value qkv_value = qkv.forward(ctx, x);  // [tokens, (heads + 2 kv_heads) head_dim]
  if (rope != nullptr) {
    qkv_value =
        autograd::rope_in_place(ctx, qkv_value, rope->tables(ctx, qkv_value.tensor.dtype()), heads, rope->pairing);
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(heads.head_dim));
  const Value mixed = ctx.cache != nullptr
                          ? autograd::cached_attention(ctx, layer, qkv_value, heads, scale)
                          : autograd::attention(ctx, qkv_value, heads, causal_ranges(ctx.layout), scale);
  return output.forward(ctx, mixed, &plus);
}

Value FeedForward::forward(Context& ctx, const Value& x, const Value& plus) const {
  const Value activated = autograd::swiglu(ctx, gate_up.forward(ctx, x));  // [tokens, intermediate]
  return down.forward(ctx, activated, &plus);
}

}  // namespace caravan::nn

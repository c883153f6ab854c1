#include "caravan/model/llama.h"

#include <fmt/format.h>

#include <algorithm>

#include "caravan/base/error.h"

namespace caravan::model {

namespace {

nn::Linear linear_of(WeightStore& store, const std::string& name, bool bias) {
  return {&store.at(name + ".weight"), bias ? &store.at(name + ".bias") : nullptr};
}

Block block_of(const LlamaConfig& config, WeightStore& store, const nn::Rope& rope, std::int64_t layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const auto norm = [&](const char* name) {
    return nn::RmsNorm{&store.at(prefix + name + ".weight"), config.rms_norm_eps, config.norm_rounding};
  };
  Block block;
  block.attention_norm = norm("input_layernorm");
  block.attention.qkv = linear_of(store, prefix + "self_attn.qkv_proj", config.attention_bias);
  block.attention.output = linear_of(store, prefix + "self_attn.o_proj", config.attention_bias);
  block.attention.rope = &rope;
  block.attention.heads = {config.num_attention_heads, config.num_key_value_heads, config.head_dim};
  block.attention.layer = static_cast<int>(layer);
  block.feed_forward_norm = norm("post_attention_layernorm");
  block.feed_forward.gate_up = linear_of(store, prefix + "mlp.gate_up_proj", config.mlp_bias);
  block.feed_forward.down = linear_of(store, prefix + "mlp.down_proj", config.mlp_bias);
  return block;
}

}  // namespace

Value Block::forward(Context& ctx, const Value& x) const {
  const Value h = attention.forward(ctx, attention_norm.forward(ctx, x), /*plus=*/x);  // [tokens, hidden]
  return feed_forward.forward(ctx, feed_forward_norm.forward(ctx, h), /*plus=*/h);     // [tokens, hidden]
}

Llama::Llama(const LlamaConfig& config, WeightStore& store)
    : Llama(config, store, {0, static_cast<int>(config.num_hidden_layers) + 2}) {}

Llama::Llama(const LlamaConfig& config, WeightStore& store, autograd::UnitRange stage)
    : config_(config), stage_(stage), dtype_(store.dtype()) {
  validate(config_);
  rope_ = {config_.rope, config_.head_dim, config_.rope_pairing, config_.rope_rounding};
  for (int unit = stage_.first; unit < stage_.last; ++unit) {
    if (unit == 0) {
      embedding_ = &store.at("model.embed_tokens.weight");
    } else if (unit + 1 == units()) {
      norm_ = {&store.at("model.norm.weight"), config_.rms_norm_eps, config_.norm_rounding};
      head_ = &store.at("lm_head.weight");
    } else {
      blocks_.push_back(block_of(config_, store, rope_, unit - 1));
    }
  }
}

Value Llama::forward_unit(Context& ctx, int index, const Value& input) const {
  if (index < stage_.first || index >= stage_.last) {
    throw ShapeError(
        fmt::format("Llama: unit {} asked for, this stage has [{}, {})", index, stage_.first, stage_.last));
  }
  if (ctx.tape != nullptr) {
    ctx.tape->begin_unit(index);
  }
  if (index == 0) {
    return autograd::embedding(ctx, *embedding_, input.tensor, config_.pad_token_id);
  }
  if (index == units() - 1) {
    return norm_.forward(ctx, input);
  }
  const Block& block = blocks_[static_cast<std::size_t>(index - std::max(1, stage_.first))];
  return autograd::segment(ctx, index - 1, input,
                           [&block](Context& inner, const Value& x) { return block.forward(inner, x); });
}

Value Llama::forward(Context& ctx, const Tensor& ids) const {
  Value x{ids};
  for (int unit = 0; unit < units(); ++unit) {
    x = forward_unit(ctx, unit, x);
  }
  return x;
}

void Llama::require_head() const {
  if (head_ == nullptr) {
    throw ShapeError(fmt::format("Llama: the stage of units [{}, {}) has no head", stage_.first, stage_.last));
  }
}

Tensor Llama::logits(Context& ctx, const Tensor& hidden) const {
  require_head();
  const DType dtype = hidden.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  const Tensor y = ctx.ops.allocate(dtype, {hidden.rows(), config_.vocab_size});
  ops::linear(ctx.ops, y, hidden, head_->weight);
  return y;
}

Value Llama::token_losses(Context& ctx, const Value& hidden, const Tensor& targets, double scale) const {
  require_head();
  return autograd::loss_head(ctx, hidden, *head_, targets, scale);
}

}  // namespace caravan::model

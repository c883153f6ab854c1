// LLaMA 1, Llama 2 and Llama 3.x: pre-norm blocks of rotary grouped-query attention and SwiGLU (Touvron et al. 2023,
// Grattafiori et al. 2024), with the numbers of transformers' LlamaForCausalLM.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/layout/param_spec.h"
#include "caravan/nn/layers.h"

namespace caravan::model {

using autograd::Context;
using autograd::Value;
using autograd::WeightStore;

// Everything that fixes the function.  Names are config.json's.
struct LlamaConfig {
  std::int64_t vocab_size = 32000;
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 11008;
  std::int64_t num_hidden_layers = 32;
  std::int64_t num_attention_heads = 32;
  std::int64_t num_key_value_heads = 32;
  std::int64_t head_dim = 128;
  double rms_norm_eps = 1e-6;
  nn::RopeConfig rope;  // holds max_position_embeddings
  bool attention_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  // The embedding row of this id gets no gradient through the embedding, as in transformers; negative: there is none.
  std::int64_t pad_token_id = -1;

  // What the formats leave open; the defaults are Hugging Face's.
  ops::NormRounding norm_rounding = ops::NormRounding::kHuggingFace;
  ops::RopePairing rope_pairing = ops::RopePairing::kRotateHalf;
  nn::RopeRounding rope_rounding = nn::RopeRounding::kActivation;

  bool operator==(const LlamaConfig&) const = default;
};

// Throws ConfigError naming the fields and their values when the numbers are impossible or contradict each other: sizes
// below one, heads that kv heads do not divide, an odd head_dim, products beyond 2^62, rope fields missing.
void validate(const LlamaConfig& config);

// The table of parameters, in unit order: embedding, blocks, final norm, head.  Names are Hugging Face's; the fusions
// are `model.layers.N.self_attn.qkv_proj.{weight,bias}` and `model.layers.N.mlp.gate_up_proj.{weight,bias}`.
std::vector<ParamSpec> parameter_specs(const LlamaConfig& config);

// The rows of that table that a pipeline stage of units [units.first, units.last) stores.  Where the embeddings are
// tied and the stage has the head without the embedding, the head is stored as `lm_head.weight` with the embedding's
// initial values: its gradient and the embedding's are to be summed over the two stages.
std::vector<ParamSpec> stage_specs(const LlamaConfig& config, autograd::UnitRange units);

// One transformer block.
struct Block {
  nn::RmsNorm attention_norm;
  nn::Attention attention;
  nn::RmsNorm feed_forward_norm;
  nn::FeedForward feed_forward;

  // x: [tokens, hidden].  Result: the same shape.
  Value forward(Context& ctx, const Value& x) const;
};

// A model over the parameters of a store, which must outlive it.  It is a list of units, so that sharding, pipelines
// and checkpointing can take units as their grain: 0 is the embedding, 1 .. layers are the blocks, layers + 1 the final
// norm; the head stands after the last unit and gives logits or losses.
class Llama {
 public:
  // Throws ConfigError (see validate) and ShapeError when the store lacks a parameter.
  Llama(const LlamaConfig& config, WeightStore& store);
  // The same of one pipeline stage: only units [stage.first, stage.last) may be asked for, and the head of the last
  // one.
  Llama(const LlamaConfig& config, WeightStore& store, autograd::UnitRange stage);
  Llama(const Llama&) = delete;
  Llama& operator=(const Llama&) = delete;

  const LlamaConfig& config() const { return config_; }
  int units() const { return static_cast<int>(config_.num_hidden_layers) + 2; }
  autograd::UnitRange stage() const { return stage_; }
  // The rotary embedding that its layers share.
  const nn::Rope& rope() const { return rope_; }
  // The type of weights and activations.
  DType dtype() const { return dtype_; }

  // Unit `index` applied to the result of the one before; unit 0 takes token ids, [tokens] i32 (negative: padding).
  // Result: [tokens, hidden].
  Value forward_unit(Context& ctx, int index, const Value& input) const;

  // All units.  ids: [tokens] i32.  Result: [tokens, hidden], after the final norm.
  Value forward(Context& ctx, const Tensor& ids) const;

  // hidden: [tokens, hidden] from the last unit (any rows of it).  Result: [tokens, vocab], f32 (f64 for f64 models).
  Tensor logits(Context& ctx, const Tensor& hidden) const;

  // targets: [tokens] i32.  Result: [tokens] negative log likelihoods, 0 where the target is ignored.  With a tape the
  // gradients of scale * sum(result) are made here: scale is 1 over the valid targets of the whole global batch.
  Value token_losses(Context& ctx, const Value& hidden, const Tensor& targets, double scale = 1.0) const;

 private:
  void require_head() const;

  LlamaConfig config_;
  autograd::UnitRange stage_;
  DType dtype_;
  const autograd::Parameter* embedding_ = nullptr;
  nn::Rope rope_;
  std::vector<Block> blocks_;  // of the stage
  nn::RmsNorm norm_;
  const autograd::Parameter* head_ = nullptr;
};

}  // namespace caravan::model

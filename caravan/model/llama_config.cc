#include <fmt/format.h>

#include <cmath>

#include "caravan/base/error.h"
#include "caravan/model/llama.h"

namespace caravan::model {

namespace {

// No dimension of a real model comes near it, and the product of any two stays inside 64 bits.
constexpr std::int64_t kLargestExtent = std::int64_t{1} << 30;

void require_extent(const char* field, std::int64_t value) {
  if (value < 1 || value > kLargestExtent) {
    throw ConfigError(fmt::format("{} must be between 1 and {}, found {}", field, kLargestExtent, value));
  }
}

ParamSpec single(const std::string& name, const Shape& shape, const Init& init, DecayGroup decay, std::int64_t unit) {
  return {.name = name,
          .shape = shape,
          .parts = {{name, shape, 0}},
          .init = init,
          .decay = decay,
          .unit = static_cast<int>(unit),
          .trainable = true,
          .alias_of = {}};
}

// One projection of a fused matrix: its Hugging Face name and its output rows.
struct Projection {
  const char* name;
  std::int64_t rows;
};

// Appends the weight (and bias) of projections stored as one matrix named `fused` below `prefix`.
void add_projections(std::vector<ParamSpec>& specs, const std::string& prefix, const char* fused,
                     const std::vector<Projection>& projections, std::int64_t columns, bool bias, const Init& init,
                     std::int64_t unit) {
  ParamSpec weight{.name = prefix + fused + ".weight",
                   .shape = {},
                   .parts = {},
                   .init = init,
                   .decay = DecayGroup::kMatrix,
                   .unit = static_cast<int>(unit),
                   .trainable = true,
                   .alias_of = {}};
  ParamSpec offset = weight;
  offset.name = prefix + fused + ".bias";
  offset.init = {InitKind::kZeros, 0.0};
  offset.decay = DecayGroup::kBias;
  std::int64_t rows = 0;
  for (const Projection& one : projections) {
    weight.parts.push_back({prefix + one.name + ".weight", {one.rows, columns}, rows});
    offset.parts.push_back({prefix + one.name + ".bias", {one.rows}, rows});
    rows += one.rows;
  }
  weight.shape = {rows, columns};
  offset.shape = {rows};
  specs.push_back(weight);
  if (bias) {
    specs.push_back(offset);
  }
}

void add_block(std::vector<ParamSpec>& specs, const LlamaConfig& c, std::int64_t layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::int64_t unit = layer + 1;
  const Init normal{InitKind::kNormal, c.initializer_range};
  const Init ones{InitKind::kOnes, 0.0};
  const std::int64_t query = c.num_attention_heads * c.head_dim;
  const std::int64_t kv = c.num_key_value_heads * c.head_dim;

  specs.push_back(single(prefix + "input_layernorm.weight", {c.hidden_size}, ones, DecayGroup::kNorm, unit));
  add_projections(specs, prefix + "self_attn.", "qkv_proj", {{"q_proj", query}, {"k_proj", kv}, {"v_proj", kv}},
                  c.hidden_size, c.attention_bias, normal, unit);
  add_projections(specs, prefix + "self_attn.", "o_proj", {{"o_proj", c.hidden_size}}, query, c.attention_bias, normal,
                  unit);
  specs.push_back(single(prefix + "post_attention_layernorm.weight", {c.hidden_size}, ones, DecayGroup::kNorm, unit));
  add_projections(specs, prefix + "mlp.", "gate_up_proj",
                  {{"gate_proj", c.intermediate_size}, {"up_proj", c.intermediate_size}}, c.hidden_size, c.mlp_bias,
                  normal, unit);
  add_projections(specs, prefix + "mlp.", "down_proj", {{"down_proj", c.hidden_size}}, c.intermediate_size, c.mlp_bias,
                  normal, unit);
}

}  // namespace

void validate(const LlamaConfig& config) {
  require_extent("vocab_size", config.vocab_size);
  require_extent("hidden_size", config.hidden_size);
  require_extent("intermediate_size", config.intermediate_size);
  require_extent("num_hidden_layers", config.num_hidden_layers);
  require_extent("num_attention_heads", config.num_attention_heads);
  require_extent("num_key_value_heads", config.num_key_value_heads);
  require_extent("head_dim", config.head_dim);
  constexpr std::int64_t kMostLayers = 4096;
  if (config.num_hidden_layers > kMostLayers) {
    throw ConfigError(
        fmt::format("num_hidden_layers must be at most {}, found {}", kMostLayers, config.num_hidden_layers));
  }
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    throw ConfigError(fmt::format("num_attention_heads ({}) must be a multiple of num_key_value_heads ({})",
                                  config.num_attention_heads, config.num_key_value_heads));
  }
  if (config.head_dim % 2 != 0) {
    throw ConfigError(fmt::format("head_dim must be even for rotary embedding, found {}", config.head_dim));
  }
  require_extent("num_attention_heads * head_dim", config.num_attention_heads * config.head_dim);
  if (!(config.rms_norm_eps >= 0.0) || !std::isfinite(config.rms_norm_eps)) {
    throw ConfigError(fmt::format("rms_norm_eps must be a number of at least 0, found {}", config.rms_norm_eps));
  }
  if (!(config.initializer_range >= 0.0) || !std::isfinite(config.initializer_range)) {
    throw ConfigError(
        fmt::format("initializer_range must be a number of at least 0, found {}", config.initializer_range));
  }
  nn::validate(config.rope, config.head_dim);
}

std::vector<ParamSpec> parameter_specs(const LlamaConfig& config) {
  validate(config);
  const Init normal{InitKind::kNormal, config.initializer_range};
  const Shape table{config.vocab_size, config.hidden_size};
  const std::int64_t last = config.num_hidden_layers + 1;

  std::vector<ParamSpec> specs;
  specs.push_back(single("model.embed_tokens.weight", table, normal, DecayGroup::kEmbedding, 0));
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    add_block(specs, config, layer);
  }
  specs.push_back(single("model.norm.weight", {config.hidden_size}, {InitKind::kOnes, 0.0}, DecayGroup::kNorm, last));
  ParamSpec head = single("lm_head.weight", table, normal, DecayGroup::kMatrix, last);
  if (config.tie_word_embeddings) {
    head.alias_of = "model.embed_tokens.weight";
  }
  specs.push_back(head);
  return specs;
}

std::vector<ParamSpec> stage_specs(const LlamaConfig& config, autograd::UnitRange units) {
  std::vector<ParamSpec> specs = parameter_specs(config);
  std::erase_if(specs, [&](const ParamSpec& spec) { return spec.unit < units.first || spec.unit >= units.last; });
  for (ParamSpec& spec : specs) {
    if (!spec.alias_of.empty() && units.first > 0) {
      spec.parts.front().name = spec.alias_of;  // the key of its initial values
      spec.alias_of.clear();
      spec.replica = true;
    }
  }
  return specs;
}

}  // namespace caravan::model

// A small random model with any rotary scaling, for the tests of this room.
#pragma once

#include <memory>
#include <vector>

#include "caravan/base/philox.h"
#include "caravan/model/llama.h"
#include "caravan/tensor/copy.h"

namespace caravan::generate {

inline ops::Context context_of(ops::Backend backend, bool dry_run = false) {
  return ops::make_context(
      {.backend = backend, .dry_run = dry_run, .threads = 2, .memory_capacity = std::int64_t{1} << 30});
}

struct TinyModel {
  std::unique_ptr<autograd::WeightStore> weights;
  std::unique_ptr<model::Llama> llama;
};

// Scaling begins to matter at 12 tokens.
inline model::LlamaConfig tiny_config(nn::RopeKind kind) {
  model::LlamaConfig config;
  config.vocab_size = 61;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.initializer_range = 0.3;  // attention far from flat
  config.rope.kind = kind;
  config.rope.factor = 4.0;
  config.rope.factor_given = true;
  config.rope.max_position_embeddings = kind == nn::RopeKind::kDynamic ? 12 : 48;
  config.rope.original_max_position_embeddings = 12;
  config.rope.short_factor = {1.0, 1.1, 1.4, 2.3};
  config.rope.long_factor = {1.05, 1.7, 4.2, 8.5};
  return config;
}

inline TinyModel tiny_model(ops::Context& ctx, const model::LlamaConfig& config, DType dtype) {
  TinyModel result;
  result.weights = std::make_unique<autograd::WeightStore>(ctx, model::parameter_specs(config), dtype);
  if (!ctx.dry_run()) {
    autograd::initialize(ctx, *result.weights, /*seed=*/3);
  }
  result.llama = std::make_unique<model::Llama>(config, *result.weights);
  return result;
}

inline std::vector<std::int32_t> random_ids(std::size_t count, std::int64_t vocab_size, std::uint64_t seed = 1) {
  const RandomStream random(seed, "ids");
  std::vector<std::int32_t> ids(count);
  for (std::size_t i = 0; i < count; ++i) {
    ids[i] = static_cast<std::int32_t>(random.uniform(i) * static_cast<double>(vocab_size));
  }
  return ids;
}

// The logits after the last of `ids`, by one pass without a cache.
inline std::vector<double> uncached_logits(ops::Context& ctx, const model::Llama& model,
                                           const std::vector<std::int32_t>& ids) {
  const SequenceLayout layout = pack(std::vector<std::int64_t>{static_cast<std::int64_t>(ids.size())});
  autograd::Context pass(ctx, layout);
  const autograd::Value hidden = model.forward(pass, to_device(*ctx.allocator, ids));
  return to_doubles(model.logits(pass, hidden.tensor.row_range(layout.rows - 1, layout.rows)));
}

// Largest difference over the largest magnitude of the reference.
inline double relative_error(const std::vector<double>& found, const std::vector<double>& reference) {
  double error = 0.0;
  double scale = 0.0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    error = std::max(error, std::abs(found.at(i) - reference[i]));
    scale = std::max(scale, std::abs(reference[i]));
  }
  return found.size() == reference.size() ? error / scale : 1.0;
}

}  // namespace caravan::generate

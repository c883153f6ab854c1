#include "caravan/generate/decoder.h"

#include <fmt/format.h>

#include <utility>

#include "caravan/base/error.h"
#include "caravan/tensor/copy.h"

namespace caravan::generate {

Decoder::Decoder(ops::Context& ctx, const model::Llama& model, std::vector<std::int64_t> capacities)
    : ctx_(&ctx),
      model_(&model),
      cache_(ctx, cache_shape(model), capacities),
      sequences_(capacities.size()),
      lengths_(capacities.size(), 0) {}

CacheShape Decoder::cache_shape(const model::Llama& model) {
  const model::LlamaConfig& config = model.config();
  return {config.num_hidden_layers, config.num_key_value_heads * config.head_dim, model.dtype()};
}

void Decoder::keep(std::size_t i, std::int64_t length) {
  std::vector<std::int32_t>& sequence = sequences_.at(i);
  if (length < 0 || length > static_cast<std::int64_t>(sequence.size())) {
    throw ShapeError(fmt::format("Decoder: {} ids of sequence {} to keep, there are {}", length, i, sequence.size()));
  }
  sequence.resize(static_cast<std::size_t>(length));
}

void Decoder::reserve(const std::vector<std::int64_t>& capacities) {
  cache_.reserve(*ctx_, capacities);
}

std::vector<Tensor> Decoder::extend(const std::vector<std::vector<std::int32_t>>& ids) {
  if (ids.size() != sequences_.size()) {
    throw ShapeError(fmt::format("Decoder: ids for {} sequences, there are {}", ids.size(), sequences_.size()));
  }
  const model::LlamaConfig& config = model_->config();
  SequenceLayout layout;
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::vector<std::int32_t>& sequence = sequences_[i];
    auto held = static_cast<std::int64_t>(sequence.size());
    sequence.insert(sequence.end(), ids[i].begin(), ids[i].end());
    const auto length = static_cast<std::int64_t>(sequence.size());
    // Rows that keep() left may have been computed for a longer sequence.
    if (!nn::same_frequencies(config.rope, config.head_dim, lengths_[i], length)) {
      held = 0;
    }
    lengths_[i] = length;
    layout.sequences.push_back({static_cast<std::int64_t>(tokens.size()), length - held, held});
    tokens.insert(tokens.end(), sequence.begin() + held, sequence.end());
  }
  layout.rows = static_cast<std::int64_t>(tokens.size());
  ids_run_ += layout.rows;

  autograd::Context pass(*ctx_, layout);
  pass.cache = &cache_;
  const autograd::Value hidden = model_->forward(pass, to_device(*ctx_->allocator, tokens));
  std::vector<Tensor> logits(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::int64_t end = layout.sequences[i].begin + layout.sequences[i].length;
    if (!ids[i].empty()) {
      logits[i] = model_->logits(pass, hidden.tensor.row_range(end - 1, end));
    }
  }
  return logits;
}

}  // namespace caravan::generate

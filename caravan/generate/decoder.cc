#include "caravan/generate/decoder.h"

#include <fmt/format.h>

#include <utility>

#include "caravan/base/error.h"
#include "caravan/ops/trace.h"
#include "caravan/tensor/copy.h"

namespace caravan::generate {

Decoder::Decoder(ops::Context& ctx, const model::Llama& model, std::vector<std::int64_t> capacities,
                 Recording recording)
    : ctx_(&ctx),
      model_(&model),
      cache_(ctx, cache_shape(model), capacities),
      sequences_(capacities.size()),
      lengths_(capacities.size(), 0),
      records_(recording == Recording::kAlways ||
               (recording == Recording::kOnGpu && ctx.backend == ops::Backend::kCuda)) {}

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
  steps_go_on_ = false;
}

void Decoder::reserve(const std::vector<std::int64_t>& capacities) {
  steps_.reset();
  steps_go_on_ = false;
  cache_.reserve(*ctx_, capacities);
}

// One id of each sequence as a recorded step, where it can be one.
bool Decoder::recorded_step(const std::vector<std::vector<std::int32_t>>& ids, std::vector<Tensor>& logits) {
  const model::LlamaConfig& config = model_->config();
  std::vector<std::int64_t> held;
  std::vector<std::int32_t> next;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto length = static_cast<std::int64_t>(sequences_[i].size());
    if (!records_ || ids[i].size() != 1 || length == 0 || length >= cache_.capacity(i) ||
        !steps_can_be_recorded(config, lengths_[i], cache_.capacity(i))) {
      return false;
    }
    held.push_back(length);
    next.push_back(ids[i].front());
  }
  if (ids.empty()) {
    return false;
  }
  if (steps_ == nullptr) {
    steps_ = std::make_unique<StepGraph>(*ctx_, *model_, cache_, StepGraph::Choice::kByHost);
    steps_go_on_ = false;
  }
  if (!steps_go_on_) {
    steps_->begin(held, next);
    steps_go_on_ = true;
  }
  steps_->step(next);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    sequences_[i].push_back(next[i]);
    lengths_[i] = held[i] + 1;
    logits.push_back(steps_->logits().row_range(static_cast<std::int64_t>(i), static_cast<std::int64_t>(i) + 1));
  }
  ids_run_ += static_cast<std::int64_t>(ids.size());
  return true;
}

std::vector<Tensor> Decoder::extend(const std::vector<std::vector<std::int32_t>>& ids) {
  if (ids.size() != sequences_.size()) {
    throw ShapeError(fmt::format("Decoder: ids for {} sequences, there are {}", ids.size(), sequences_.size()));
  }
  if (std::vector<Tensor> logits; recorded_step(ids, logits)) {
    return logits;
  }
  steps_go_on_ = false;
  const ops::TraceRange range(*ctx_, "decoder pass");
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

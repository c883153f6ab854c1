#include "caravan/bench/decode.h"

#include <chrono>
#include <vector>

#include "caravan/base/philox.h"
#include "caravan/generate/decoder.h"
#include "caravan/generate/step_graph.h"

namespace caravan::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::vector<std::int32_t> random_prompt(std::int64_t length, std::int64_t vocab) {
  const RandomStream random(1, "prompt");
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < length; ++i) {
    ids.push_back(
        static_cast<std::int32_t>(random.uniform(static_cast<std::uint64_t>(i)) * static_cast<double>(vocab)));
  }
  return ids;
}

// The keys and values of a sequence of `length`, and all weights: of an untied embedding one row.
double bytes_per_token(const model::Llama& model, double length) {
  const model::LlamaConfig& config = model.config();
  double elements = 0.0;
  for (const ParamSpec& spec : model::parameter_specs(config)) {
    const bool embedding = spec.decay == DecayGroup::kEmbedding && !config.tie_word_embeddings;
    elements += !spec.alias_of.empty() ? 0.0
                : embedding            ? static_cast<double>(spec.shape[1])
                                       : static_cast<double>(spec.shape.elements());
  }
  elements +=
      2.0 * static_cast<double>(config.num_hidden_layers * config.num_key_value_heads * config.head_dim) * length;
  return elements * size_of(model.dtype());
}

}  // namespace

DecodeTime measure_decode(ops::Context& ctx, const model::Llama& model, std::int64_t prompt, std::int64_t tokens) {
  constexpr std::int64_t kWarmUp = 8;
  DecodeTime result;
  result.prompt = prompt;
  result.tokens = tokens;
  generate::Decoder decoder(ctx, model, {prompt + kWarmUp + tokens + 1});
  const std::vector<std::int32_t> ids = random_prompt(prompt, model.config().vocab_size);
  for (int round = 0; round < 2; ++round) {
    decoder.keep(0, 0);
    const Clock::time_point begin = Clock::now();
    decoder.extend({ids});
    ops::synchronize(ctx);
    result.prefill = seconds_since(begin);
  }
  generate::StepGraph steps(ctx, model, decoder.cache(), generate::StepGraph::Choice::kGreedy);
  steps.begin({prompt}, {ids.front()});
  Clock::time_point begin = Clock::now();
  for (std::int64_t taken = 0; taken < kWarmUp + tokens; ++taken) {
    steps.take_ahead(kWarmUp + tokens - taken);
    if (taken + 1 == kWarmUp) {
      begin = Clock::now();
    }
  }
  ops::synchronize(ctx);
  result.total = seconds_since(begin);
  result.bytes = bytes_per_token(model, static_cast<double>(prompt + kWarmUp) + static_cast<double>(tokens) / 2);
  return result;
}

}  // namespace caravan::bench

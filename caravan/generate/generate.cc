#include "caravan/generate/generate.h"

#include <fmt/format.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/generate/decoder.h"
#include "caravan/generate/device_sampling.h"

namespace caravan::generate {

namespace {

void check_one(const Request& request, std::size_t index, const model::LlamaConfig& config) {
  const auto length = static_cast<std::int64_t>(request.prompt.size());
  // Positions are 32-bit numbers.
  const std::int64_t limit = std::min<std::int64_t>(nn::max_sequence_length(config.rope), INT32_MAX);
  if (length == 0) {
    throw InputError(fmt::format("prompt {} is empty; give at least one token", index));
  }
  for (std::size_t i = 0; i < request.prompt.size(); ++i) {
    if (request.prompt[i] < 0 || request.prompt[i] >= config.vocab_size) {
      throw InputError(fmt::format("prompt {}, place {}: token id {} is outside the vocabulary of {} (0 to {})", index,
                                   i, request.prompt[i], config.vocab_size, config.vocab_size - 1));
    }
  }
  if (request.max_new_tokens < 0) {
    throw InputError(
        fmt::format("prompt {}: max_new_tokens must not be negative, found {}", index, request.max_new_tokens));
  }
  if (length > limit) {
    throw InputError(fmt::format("prompt {} has {} tokens, the model takes at most {}; shorten it by {}", index, length,
                                 limit, length - limit));
  }
  if (request.max_new_tokens > limit - length) {
    throw InputError(fmt::format(
        "prompt {} has {} tokens and {} new ones are asked for, {} more than the {} the model takes; ask "
        "for at most {} or shorten the prompt",
        index, length, request.max_new_tokens, request.max_new_tokens - (limit - length), limit, limit - length));
  }
  validate(request.sampling);
}

// A request on its way: what was generated, and whether and why it ended.
struct Progress {
  const Request& request;
  std::size_t index;
  const OnToken& on_token;
  Result result = {};

  // Takes a new id; false when it was the last.
  bool take(std::int32_t id) {
    result.ids.push_back(id);
    const bool go_on = !on_token || on_token(index, id);
    if (std::ranges::find(request.eos, id) != request.eos.end()) {
      result.reason = FinishReason::kEos;
      return false;
    }
    if (!go_on) {
      result.reason = FinishReason::kStopped;
      return false;
    }
    return static_cast<std::int64_t>(result.ids.size()) < request.max_new_tokens;
  }
};

// Steps on a GPU: the device chooses and goes on, a step ahead of what the host has seen.
void run_ahead(ops::Context& ctx, const model::Llama& model, DenseCache& cache, Progress& progress) {
  const auto prompt = static_cast<std::int64_t>(progress.request.prompt.size());
  const bool sampled = progress.request.sampling.do_sample;
  StepGraph steps(ctx, model, cache, sampled ? StepGraph::Choice::kSampled : StepGraph::Choice::kGreedy);
  if (sampled) {
    steps.draw_by({progress.request.sampling}, {progress.index}, {1});
  }
  steps.begin({prompt}, {progress.result.ids.front()});
  const std::int64_t wanted = progress.request.max_new_tokens - 1;
  for (std::int64_t taken = 0; taken < wanted; ++taken) {
    const std::int32_t id = steps.take_ahead(wanted - taken).front();
    if (id < 0) {
      throw InputError("a logit is NaN, or all are minus infinity; the model's weights or numbers are broken");
    }
    if (!progress.take(id)) {
      return;
    }
  }
}

Result run(ops::Context& ctx, const model::Llama& model, const Request& request, std::size_t index,
           const OnToken& on_token) {
  Progress progress{request, index, on_token};
  if (request.max_new_tokens == 0) {
    return progress.result;
  }
  // The last new token is never run.
  const auto length = static_cast<std::int64_t>(request.prompt.size());
  Decoder decoder(ctx, model, {length + request.max_new_tokens - 1});
  std::vector<Tensor> logits = decoder.extend({request.prompt});
  for (std::int64_t position = 0;; ++position) {
    const std::int32_t id = sample_row(ctx, logits.front(), request.sampling, index, position);
    if (!progress.take(id)) {
      return progress.result;
    }
    if (ctx.backend == ops::Backend::kCuda &&
        steps_can_be_recorded(model.config(), length, length + request.max_new_tokens)) {
      run_ahead(ctx, model, decoder.cache(), progress);
      return progress.result;
    }
    logits = decoder.extend({{id}});
  }
}

}  // namespace

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kEos:
      return "eos";
    case FinishReason::kStopped:
      return "stopped";
  }
  return "unknown";
}

void check(const std::vector<Request>& requests, const model::LlamaConfig& config) {
  for (std::size_t i = 0; i < requests.size(); ++i) {
    check_one(requests[i], i, config);
  }
}

std::vector<Result> generate(ops::Context& ctx, const model::Llama& model, const std::vector<Request>& requests,
                             const OnToken& on_token) {
  check(requests, model.config());
  std::vector<Result> results;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    results.push_back(run(ctx, model, requests[i], i, on_token));
  }
  return results;
}

}  // namespace caravan::generate

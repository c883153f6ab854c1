// Continues prompts with a KV cache.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "caravan/generate/sampler.h"
#include "caravan/model/llama.h"
#include "caravan/ops/context.h"

namespace caravan::generate {

enum class FinishReason { kLength, kEos, kStopped };
const char* to_string(FinishReason reason);  // "length", "eos", "stopped"

struct Request {
  std::vector<std::int32_t> prompt;  // at least one id
  std::int64_t max_new_tokens = 128;
  SamplingOptions sampling = {};
  std::vector<std::int32_t> eos = {};  // ids that end it, kept as the last new one; empty: never
};

struct Result {
  std::vector<std::int32_t> ids;  // the new ones
  FinishReason reason = FinishReason::kLength;
};

// Called with each new id of request `index`; false ends that request (kStopped).
using OnToken = std::function<bool(std::size_t index, std::int32_t id)>;

// Throws InputError naming prompt and numbers: an empty prompt, an id outside the vocabulary, a prompt and new tokens
// longer than the model's length (by how much); ConfigError for its sampling.
void check(const std::vector<Request>& requests, const model::LlamaConfig& config);

// Runs the requests one after the other, each through a cache of its own size in Segment::kKvCache.  With greedy
// sampling the ids are those of transformers' generate().  Logits of cached steps equal those of a pass over the whole
// sequence within rounding; where dynamic or longrope scaling changes the frequencies on the way, the ids are those of
// transformers with use_cache=False (see Decoder).
// Throws what check throws, and OutOfMemoryError.
std::vector<Result> generate(ops::Context& ctx, const model::Llama& model, const std::vector<Request>& requests,
                             const OnToken& on_token = {});

}  // namespace caravan::generate

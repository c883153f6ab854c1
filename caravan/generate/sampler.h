// The next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "caravan/base/philox.h"

namespace caravan::generate {

// Hugging Face's names and order: temperature, then top_k, then top_p, softmax, one draw.
struct SamplingOptions {
  bool do_sample = false;    // false: the largest logit, the lowest id of equals
  double temperature = 1.0;  // above 0
  std::int64_t top_k = 50;   // 0: all
  double top_p = 1.0;        // the smallest set of tokens whose probabilities reach it, at least one
  std::uint64_t seed = 0;

  bool operator==(const SamplingOptions&) const = default;
};

// Throws ConfigError naming the field.
void validate(const SamplingOptions& options);

struct TokenProbability {
  std::int32_t id = 0;
  double probability = 0.0;
};

// What may be drawn, by id: the tokens that top_k and top_p leave, their probabilities summing to 1.  Of equal logits
// at top_p's edge the lower ids go, as a stable sort leaves them.  Throws as sample().
std::vector<TokenProbability> distribution(std::span<const float> logits, const SamplingOptions& options);

// The random numbers of prompt `stream`: value n is for the new token n.
RandomStream sampling_stream(const SamplingOptions& options, std::uint64_t stream);

// The id for place `position` (counted in new tokens) of prompt `stream`.  The random number depends on (seed, stream,
// position) alone: batching changes nothing.  Throws InputError when a logit is NaN or all are -infinity.
std::int32_t sample(std::span<const float> logits, const SamplingOptions& options, std::uint64_t stream,
                    std::int64_t position);

}  // namespace caravan::generate

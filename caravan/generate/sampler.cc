#include "caravan/generate/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "caravan/base/error.h"

namespace caravan::generate {

namespace {

struct Candidate {
  std::int32_t id = 0;
  float logit = 0.0F;
  double weight = 0.0;  // exp((logit - largest) / temperature)
};

std::size_t largest_of(std::span<const float> logits) {
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) {
      throw InputError(fmt::format("the logit of token {} is NaN; the model's weights or numbers are broken", i));
    }
    if (logits[i] > logits[best]) {
      best = i;
    }
  }
  if (logits.empty() || logits[best] == -INFINITY) {
    throw InputError("every logit is minus infinity; the model's weights or numbers are broken");
  }
  return best;
}

// The smallest logit that top_k lets through; equals of the k-th stay, as in transformers' TopKLogitsWarper.
float top_k_threshold(std::span<const float> logits, std::int64_t top_k) {
  if (top_k == 0 || top_k >= static_cast<std::int64_t>(logits.size())) {
    return -INFINITY;
  }
  std::vector<float> sorted(logits.begin(), logits.end());
  const auto kth = sorted.begin() + (top_k - 1);
  std::ranges::nth_element(sorted, kth, std::greater<>());
  return *kth;
}

double total_weight(const std::vector<Candidate>& candidates) {
  double total = 0.0;
  for (const Candidate& one : candidates) {
    total += one.weight;
  }
  return total;
}

// transformers' TopPLogitsWarper: from the smallest upwards, tokens go as long as their probabilities sum to at most
// 1 - top_p; of equals the lower id goes first; the last one stays.
void keep_top_p(std::vector<Candidate>& candidates, double top_p) {
  std::ranges::stable_sort(candidates, {}, &Candidate::logit);
  const double total = total_weight(candidates);
  double sum = 0.0;
  std::size_t gone = 0;
  while (gone + 1 < candidates.size()) {
    sum += candidates[gone].weight;
    if (sum / total > 1.0 - top_p) {
      break;
    }
    ++gone;
  }
  candidates.erase(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(gone));
  std::ranges::sort(candidates, {}, &Candidate::id);
}

}  // namespace

void validate(const SamplingOptions& options) {
  if (!options.do_sample) {
    return;
  }
  if (!(options.temperature > 0.0) || !std::isfinite(options.temperature)) {
    throw ConfigError(
        fmt::format("temperature must be a number above 0, found {}; for the likeliest token every time, sample "
                    "greedily (--greedy)",
                    options.temperature));
  }
  if (options.top_k < 0) {
    throw ConfigError(fmt::format("top_k must be at least 1, or 0 for all tokens, found {}", options.top_k));
  }
  if (!(options.top_p >= 0.0 && options.top_p <= 1.0)) {
    throw ConfigError(fmt::format("top_p must be from 0 to 1, found {}", options.top_p));
  }
}

std::vector<TokenProbability> distribution(std::span<const float> logits, const SamplingOptions& options) {
  validate(options);
  const std::size_t best = largest_of(logits);
  if (!options.do_sample) {
    return {{static_cast<std::int32_t>(best), 1.0}};
  }
  const float threshold = top_k_threshold(logits, options.top_k);
  std::vector<Candidate> candidates;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] < threshold || logits[i] == -INFINITY) {
      continue;
    }
    // Equal infinities would give NaN.
    const double below = logits[i] == logits[best] ? 0.0 : static_cast<double>(logits[i]) - logits[best];
    candidates.push_back({static_cast<std::int32_t>(i), logits[i], std::exp(below / options.temperature)});
  }
  if (options.top_p < 1.0) {
    keep_top_p(candidates, options.top_p);
  }
  const double total = total_weight(candidates);
  std::vector<TokenProbability> result;
  for (const Candidate& one : candidates) {
    result.push_back({one.id, one.weight / total});
  }
  return result;
}

RandomStream sampling_stream(const SamplingOptions& options, std::uint64_t stream) {
  return RandomStream(options.seed, fmt::format("sample.{}", stream));
}

std::int32_t sample(std::span<const float> logits, const SamplingOptions& options, std::uint64_t stream,
                    std::int64_t position) {
  const std::vector<TokenProbability> tokens = distribution(logits, options);
  const double drawn = sampling_stream(options, stream).uniform(static_cast<std::uint64_t>(position));
  double sum = 0.0;
  std::int32_t last = tokens.front().id;
  for (const TokenProbability& one : tokens) {
    sum += one.probability;
    if (one.probability > 0.0) {
      last = one.id;
    }
    if (drawn < sum) {
      return one.id;
    }
  }
  return last;  // where rounding left the sum below the draw
}

}  // namespace caravan::generate

// sampler.h's rules where the logits are: on a GPU the ids come back, and the logits stay.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/generate/sampler.h"
#include "caravan/ops/context.h"
#include "caravan/ops/sampling.h"

namespace caravan::generate {

// What sequences are drawn by, as tensors that stay where they are.
class DeviceSampling {
 public:
  DeviceSampling(ops::Context& ctx, std::int64_t sequences);

  // Of each sequence.  Throws ConfigError as validate() does, ShapeError when there are not as many of each.
  void set(const std::vector<SamplingOptions>& options, const std::vector<std::uint64_t>& streams,
           const std::vector<std::int64_t>& positions);

  // ids[i]: what sample() gives for row i of logits; -1 where it throws.  ids: [sequences] i32.  logits: [sequences, vocab],
  // f32 or f64.
  void draw(ops::Context& ctx, const Tensor& ids, const Tensor& logits) const;

  // [sequences] i32: whoever draws again counts them up.
  const Tensor& positions() const { return rows_.positions; }

 private:
  ops::SamplingRows rows_;
};

// sample() of one row of logits, [1, vocab] or [vocab], f32 or f64, wherever it is: on a GPU one id comes back, and its weights in steps
// of 2^-40 (ops/sampling.h) decide where sample()'s are f64.  Throws as sample().
std::int32_t sample_row(ops::Context& ctx, const Tensor& logits, const SamplingOptions& options, std::uint64_t stream,
                        std::int64_t position);

}  // namespace caravan::generate

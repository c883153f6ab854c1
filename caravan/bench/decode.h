// Decoding one sequence: how fast, beside how fast memory is read.
#pragma once

#include <cstdint>

#include "caravan/model/llama.h"
#include "caravan/ops/context.h"

namespace caravan::bench {

struct DecodeTime {
  std::int64_t prompt = 0;  // tokens
  std::int64_t tokens = 0;  // generated and timed, after a few to warm up
  double prefill = 0.0;     // seconds of a prompt, made twice: plans are there
  double total = 0.0;       // seconds of all `tokens`
  double bytes = 0.0;  // that a token has to read: every weight but the embedding's other rows, and its keys and values

  double per_second() const { return static_cast<double>(tokens) / total; }
  double bandwidth() const { return bytes * per_second(); }
};

// Greedy steps of a model with random weights behind a prompt of random ids.  Throws OutOfMemoryError.
DecodeTime measure_decode(ops::Context& ctx, const model::Llama& model, std::int64_t prompt, std::int64_t tokens);

}  // namespace caravan::bench

// Drawing ids from logits, row by row, by parameters that stand in tensors: one recorded graph (ops/graph.h) draws for
// sequences that sample differently.
#pragma once

#include "caravan/ops/context.h"

namespace caravan::ops {

// What every row is drawn by, [rows] each.
struct SamplingRows {
  Tensor temperature;  // f64: what logits are divided by; 0: the largest logit is taken, the first of equals
  Tensor top_k;        // i32: tokens with the k largest logits are left, equals of the k-th too; 0: all
  Tensor top_p;        // f64: of these the smallest set of the likeliest whose probabilities reach it, at least one
  Tensor streams;      // [rows, 2] i64: the bits of a RandomStream's seed and name_hash (base/philox.h)
  Tensor positions;    // i32: which value of the stream decides
};

// ids[i] = an id drawn from row i by transformers' rules (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, in
// this order); -1 where the row holds a NaN or nothing above minus infinity.
//
// A token's weight is exp((logit - largest) / temperature) in steps of 2^-40, so that sums are exact and have no order.
// From the smallest upwards tokens go as long as their weights sum to at most 1 - top_p of all, of equals the lower ids
// first; the first id whose weights up to it sum to more than the stream's value times the rest is drawn.
//
// ids: [rows] i32.  logits: [rows, vocab], f32 or f64 (rounded to f32 first), contiguous.  Throws ShapeError otherwise.
void sample_ids(Context& ctx, const Tensor& ids, const Tensor& logits, const SamplingRows& by);

}  // namespace caravan::ops

// What a step of decoding asks besides the model's own ops.  Places, lengths and ids stand in tensors, so that one
// recorded graph (ops/graph.h) serves every step.
#pragma once

#include "caravan/ops/attention.h"
#include "caravan/ops/context.h"

namespace caravan::ops {

// dst[at[i]] = src[i].  dst: [rows, columns].  src: [n, columns], same compute float dtype; either may be a column range.
// at: [n] i32, no two equal; what lies outside dst's rows is left out.  Throws ShapeError when shapes or dtypes break this.
void append_rows(Context& ctx, const Tensor& dst, const Tensor& src, const Tensor& at);

// attention() of one query a sequence over a cache: query row i sees the key rows [begins[i], begins[i] + lengths[i]).
// out, query: [n, heads * head_dim].  key, value: [cache rows, kv_heads * head_dim].  One compute float dtype; column
// ranges are fine.  begins, lengths: [n] i32; lengths beyond max_length count as max_length, and none gives a row of
// zeros.  Softmax runs in f32 (f64 for f64).  Throws ShapeError when shapes or dtypes break this.
void cached_attention(Context& ctx, const Tensor& out, const Tensor& query, const Tensor& key, const Tensor& value,
                      const HeadShape& heads, const Tensor& begins, const Tensor& lengths, std::int64_t max_length,
                      double scale);

// ids[i] = the place of the largest element of row i, the first of equals; -1 where the row holds a NaN or nothing above
// minus infinity.  ids: [n] i32.  logits: [n, vocab] f32 or f64, contiguous.  Throws ShapeError otherwise.
void argmax(Context& ctx, const Tensor& ids, const Tensor& logits);

// values += 1 in every element.  values: [n] i32.  Throws ShapeError otherwise.
void count_up(Context& ctx, const Tensor& values);

}  // namespace caravan::ops

// Softmax attention over packed tokens, masked by a list of ranges.
//
//   out[q, h] = sum_k softmax_k(scale * <query[q, h], key[k, h / group]>) value[k, h / group]      Vaswani et al. 2017, eq. 1
//
// computed block by block with running maximum and sum (Dao et al. 2022): nothing of size [tokens, tokens] exists.
// group = heads / kv_heads: 1 is multi-head, heads is multi-query, between them grouped-query attention.
#pragma once

#include <vector>

#include "caravan/layout/attention_range.h"
#include "caravan/ops/context.h"

namespace caravan::ops {

struct HeadShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  // divides heads
  std::int64_t head_dim = 0;
};

// out, query: [queries, heads * head_dim].  key, value: [keys, kv_heads * head_dim].  Any compute float dtype, one for
// all four; column ranges of a fused product are fine.  lse: [queries, heads] f32 (f64 when the others are f64), the
// natural log of the softmax's denominator, kept for the backward and for merging; undefined when nobody wants it.
// ranges: as layout's check() demands.  Rows that no range covers (padding) get out 0 and lse -infinity, and rows of
// key and value outside every range are never read: they may hold NaN.
// out must not alias the inputs.  Softmax runs in f32 (f64 on the reference).
// Throws ShapeError when shapes, dtypes or ranges break this.
void attention(Context& ctx, const Tensor& out, const Tensor& lse, const Tensor& query, const Tensor& key,
               const Tensor& value, const HeadShape& heads, const std::vector<AttentionRange>& ranges, double scale);

// The gradients of query, key and value (Dao et al. 2022, algorithm 4): with P the softmax recomputed from lse and
// D[q, h] = <d_out[q, h], out[q, h]>,
//   d_value = P^T d_out,   dS = P * (d_out value^T - D),   d_query = scale dS key,   d_key = scale dS^T query.
// d_query, d_key, d_value: shapes of query, key, value; written, not added to, rows of no range get 0; they may be
// column ranges of one product and alias nothing else.  out and lse as attention() left them.  The order of sums
// depends on the arguments alone.  Nothing of size [tokens, tokens] exists.  Rows of d_out and out that no range covers
// may hold NaN. Throws ShapeError when shapes, dtypes or ranges break this.
void attention_grad(Context& ctx, const Tensor& d_query, const Tensor& d_key, const Tensor& d_value,
                    const Tensor& d_out, const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& out,
                    const Tensor& lse, const HeadShape& heads, const std::vector<AttentionRange>& ranges, double scale);

}  // namespace caravan::ops

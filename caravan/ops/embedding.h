// Rows of a table by token id.
#pragma once

#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::ops {

// y: [tokens, hidden].  table: [vocab, hidden], same compute float dtype, or blocks for it, of which the rows asked for
// are dequantised.  ids: [tokens] i32; a negative id marks
// padding and gives a row of zeros.  Throws ShapeError when shapes or dtypes differ, InputError naming row and id when
// an id is not below vocab.
void embedding(Context& ctx, const Tensor& y, const Weight& table, const Tensor& ids);
void embedding(Context& ctx, const Tensor& y, const Tensor& table, const Tensor& ids);

// d_table[id] += sum of the rows of dy whose id it is, in row order: the same bits every run and for every thread
// count. d_table: [vocab, hidden], f32 (f64 when dy is f64); rows of no id are left alone.  dy: [tokens, hidden].
// ids: [tokens] i32, negative for padding, which is skipped; so is `skipped_id` (torch's padding_idx; -1: none).
// Throws ShapeError when shapes or dtypes differ, InputError when an id is not below vocab.
void embedding_weight_grad(Context& ctx, const Tensor& d_table, const Tensor& dy, const Tensor& ids,
                           std::int64_t skipped_id = -1);

}  // namespace caravan::ops

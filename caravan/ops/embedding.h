// Rows of a table by token id.
#pragma once

#include "caravan/ops/context.h"

namespace caravan::ops {

// y: [tokens, hidden].  table: [vocab, hidden], same compute float dtype.  ids: [tokens] i32; a negative id marks
// padding and gives a row of zeros.  Throws ShapeError when shapes or dtypes differ, InputError naming row and id when
// an id is not below vocab.
void embedding(Context& ctx, const Tensor& y, const Tensor& table, const Tensor& ids);

}  // namespace caravan::ops

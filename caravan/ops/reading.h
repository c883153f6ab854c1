// Reading memory and nothing else: what bandwidth is measured with.
#pragma once

#include "caravan/ops/context.h"

namespace caravan::ops {

// sum[0] = the sum of x's 64-bit words as they stand in memory, modulo 2^64.  On the processor each thread reads one
// contiguous part of x, from four places of it at a time, with the widest loads there are, so that the time of a large
// tensor is the time of its way from memory.
// sum: [1] i64.  x: any dtype, contiguous, whole words; it does not overlap sum.  Throws ShapeError otherwise.
void sum_words(Context& ctx, const Tensor& sum, const Tensor& x);

}  // namespace caravan::ops

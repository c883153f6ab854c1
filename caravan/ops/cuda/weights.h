// What kernels multiply by: a weight's plain form, or the copy of ours that is kept of a rounded or blocked one.
#pragma once

#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::ops::cuda {

// Makes the copy where one is needed and not there, in Segment::kWeights.  In a dry run memory is taken and nothing
// computed.  Throws OutOfMemoryError.
void prepare_weight(Context& ctx, const Weight& weight);

// The elements, [out, in] contiguous or as the plain form lies.  After prepare_weight().
const Tensor& weight_elements(const Weight& weight);

}  // namespace caravan::ops::cuda

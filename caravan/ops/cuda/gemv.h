// Products of few tokens with a weight, at the speed of reading the weight.
#pragma once

#include "caravan/ops/args.h"

namespace caravan::ops::cuda {

// Up to so many tokens a weight is read once for all of them.
inline constexpr std::int64_t kGemvTokens = 8;

// Why a product is not for these kernels, or nullptr: more tokens, f32 or f64, rows that are not whole 16 bytes.
const char* refuse_gemv(const LinearArgs& args);

// w: weight_elements().  y = x W^T (+ bias) (+ residual), sums in f32, one rounding.  The order of sums depends on the shape alone.
void gemv(const LinearArgs& args, const Tensor& w);

}  // namespace caravan::ops::cuda

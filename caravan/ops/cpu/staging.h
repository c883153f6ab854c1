// Rows on their way into a product that does not take them as they stand.
#pragma once

#include "caravan/ops/context.h"

namespace caravan::ops::cpu {

// Whether oneDNN multiplies this dtype well at the context's level; other dtypes go by way of f32.
bool is_native(const Context& ctx, DType dtype);
// is_native() ? dtype : f32
DType product_dtype(const Context& ctx, DType dtype);

// Why a list's native implementation, or its widening one, does not serve a dtype; nullptr when it does.
const char* refuse_native_dtype(const Context& ctx, DType dtype);
const char* refuse_widened_dtype(DType dtype);

// The rows of x, contiguous, in `dtype`, rounded where it is narrower.
void stage_rows(const Context& ctx, DType dtype, const Tensor& x, std::byte* staged);

// Bytes rounded up so that what follows stands on a cache line.
inline std::int64_t aligned(std::int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

}  // namespace caravan::ops::cpu

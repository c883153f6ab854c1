#include "caravan/ops/cpu/staging.h"

#include <algorithm>

#include "caravan/base/threads.h"
#include "caravan/ops/cpu/kernel_choice.h"

namespace caravan::ops::cpu {

bool is_native(const Context& ctx, DType dtype) {
  return dtype == DType::kF32 || (dtype == DType::kBF16 && ctx.isa >= Isa::kAvx512Bf16);
}

DType product_dtype(const Context& ctx, DType dtype) {
  return is_native(ctx, dtype) ? dtype : DType::kF32;
}

const char* refuse_native_dtype(const Context& ctx, DType dtype) {
  if (dtype == DType::kF64) {
    return kNoF64;
  }
  return is_native(ctx, dtype) ? nullptr : "products of this dtype need a higher level";
}

const char* refuse_widened_dtype(DType dtype) {
  if (dtype == DType::kF64) {
    return kNoF64;
  }
  return dtype == DType::kF32 ? "f32 needs no widening" : nullptr;
}

void stage_rows(const Context& ctx, DType dtype, const Tensor& x, std::byte* staged) {
  const std::int64_t columns = x.columns();
  parallel_for(ctx.threads, x.rows(), grain_of(columns), [&](std::int64_t begin, std::int64_t end) {
    if (dtype == DType::kF32) {
      kernels_for(ctx.isa).widen({element_of(x.dtype()), {staged, columns}, rows_of(x), columns}, begin, end);
      return;
    }
    if (dtype != x.dtype()) {
      kernels_for(ctx.isa).convert({element_of(dtype), element_of(x.dtype()), {staged, columns}, rows_of(x), columns},
                                   begin, end);
      return;
    }
    const std::int64_t size = size_of(dtype);
    for (std::int64_t row = begin; row < end; ++row) {
      const std::byte* from = x.address() + row * x.row_stride() * size;
      std::copy(from, from + columns * size, staged + row * columns * size);
    }
  });
}

}  // namespace caravan::ops::cpu

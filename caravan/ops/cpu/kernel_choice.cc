#include "caravan/ops/cpu/kernel_choice.h"

#include <algorithm>
#include <string>

#include "caravan/base/error.h"

namespace caravan::ops::cpu {

const Kernels& kernels_for(Isa isa) {
  return isa >= Isa::kAvx512Bf16 ? kernels_avx512_bf16() : isa >= Isa::kAvx512 ? kernels_avx512() : kernels_avx2();
}

bool has_kernels(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

Element element_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return Element::kF32;
    case DType::kBF16:
      return Element::kBF16;
    case DType::kF16:
      return Element::kF16;
    default:
      throw ShapeError(std::string("the processor's kernels were given ") + to_string(dtype) +
                       " where they take f32, bf16 or f16");
  }
}

const char* refuse_pairs(const Context& ctx, DType dtype, std::int64_t head_dim,
                         std::initializer_list<std::int64_t> strides) {
  if (dtype != DType::kBF16) {
    return "bf16 alone";
  }
  if (ctx.isa < Isa::kAvx512Bf16 && !ctx.emulate_bf16_pairs) {
    return "the level has no products of bf16 pairs";
  }
  const bool even =
      head_dim % 2 == 0 && std::ranges::all_of(strides, [](std::int64_t stride) { return stride % 2 == 0; });
  return even ? nullptr : "pairs need an even head_dim and even row strides";
}

Rows rows_of(const Tensor& tensor) {
  return tensor.defined() ? Rows{tensor.address(), tensor.row_stride()} : Rows{nullptr, 0};
}

std::int64_t grain_of(std::int64_t columns) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, columns));
}

}  // namespace caravan::ops::cpu

// Compiled for x86-64-v4 with AVX512_BF16 and AVX512_VNNI.  Everything but the one function below has internal linkage: see
// kernels/kernels.h.
#include "caravan/ops/cpu/kernels/simd_avx512.h"
// clang-format keeps the order: the words come before the kernels that are written in them.
#include "caravan/ops/cpu/kernels/table.h"

namespace caravan::ops::cpu {

const Kernels& kernels_avx512_bf16() {
  static constexpr Kernels kTable = table_named("simd:avx512_bf16");
  return kTable;
}

}  // namespace caravan::ops::cpu

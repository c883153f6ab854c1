// Which table of kernels serves a context, and how its kernels name element types.
#pragma once

#include <array>
#include <initializer_list>

#include "caravan/ops/context.h"
#include "caravan/ops/cpu/kernels/kernels.h"
#include "caravan/ops/dispatch.h"

namespace caravan::ops::cpu {

// The highest table that `isa` allows.
const Kernels& kernels_for(Isa isa);

// f32, bf16 or f16: the element types that have kernels.
bool has_kernels(DType dtype);
// Throws ShapeError for the others.
Element element_of(DType dtype);

// A tensor's rows as kernels take them; null data for an undefined tensor.
Rows rows_of(const Tensor& tensor);

// The reason that every list of this backend gives for f64.
inline constexpr const char* kNoF64 = "f64 is the reference's";

// Why kernels of bf16 pairs cannot serve; nullptr: they can.  Pairs stand in rows, so head_dim and strides are even.
const char* refuse_pairs(const Context& ctx, DType dtype, std::int64_t head_dim,
                         std::initializer_list<std::int64_t> strides);

// Rows a thread takes at least, so that starting a thread costs less than its work: about 16384 elements.
std::int64_t grain_of(std::int64_t columns);

// The list of an op whose kernels exist at every level: "simd:avx512", then "simd:avx2".
template <typename Args>
std::array<Implementation<Args>, 2> simd_list(const char* (*refuse)(const Context&, const Args&),
                                              std::int64_t (*workspace)(Context&, const Args&),
                                              void (*run)(Context&, const Args&, std::byte*)) {
  return {{{"simd:avx512", Backend::kCpu, Isa::kAvx512, refuse, workspace, run},
           {"simd:avx2", Backend::kCpu, Isa::kAvx2, refuse, workspace, run}}};
}

// "simd:pairs" and then the list of an op whose other kernels exist at every level.
template <typename Args>
std::array<Implementation<Args>, 3> with_pairs(const char* (*refuse)(const Context&, const Args&),
                                               std::int64_t (*workspace)(Context&, const Args&),
                                               void (*run)(Context&, const Args&, std::byte*),
                                               const std::array<Implementation<Args>, 2>& others) {
  return {{{"simd:pairs", Backend::kCpu, Isa::kAvx2, refuse, workspace, run}, others[0], others[1]}};
}

}  // namespace caravan::ops::cpu

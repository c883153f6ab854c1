// Products of two matrices in device memory.
#pragma once

#include <cstdint>

#include "caravan/ops/context.h"
#include "caravan/tensor/tensor.h"

namespace caravan::ops::cuda {

// A matrix as it stands: rows of elements, `stride` elements from one to the next.
struct Operand {
  const std::byte* data = nullptr;
  std::int64_t stride = 0;
  bool transposed = false;  // its columns are the product's rows

  Operand() = default;
  explicit Operand(const Tensor& tensor, bool is_transposed = false)
      : data(tensor.address()), stride(tensor.row_stride()), transposed(is_transposed) {}
};

//   d = alpha op(a) op(b) + beta c (+ bias)          op(a): [m, k], op(b): [k, n], c and d: [m, n], bias: [n]
//
// a, b and bias have dtype `in`; c and d dtype `out`: that of a and b, or f32 for bf16 and f16.  Sums run in f32, with no
// narrower multiplication of f32 (f64 for f64), and are rounded once, at the end.  c may be d.  The order of sums depends
// on shapes, strides and alignments alone.
struct Gemm {
  std::int64_t m = 0, n = 0, k = 0;
  Operand a, b;
  const std::byte* c = nullptr;  // not read when beta is 0
  std::int64_t c_stride = 0;
  std::byte* d = nullptr;
  std::int64_t d_stride = 0;
  const std::byte* bias = nullptr;  // nullptr: none
  DType in = DType::kF32;
  DType out = DType::kF32;
  double alpha = 1.0;
  double beta = 0.0;

  void set_result(const Tensor& tensor) {
    d = tensor.address();
    d_stride = tensor.row_stride();
    out = tensor.dtype();
  }
  // d = ... + beta * tensor
  void set_addend(const Tensor& tensor, double factor = 1.0) {
    c = tensor.address();
    c_stride = tensor.row_stride();
    beta = factor;
  }
};

// Scratch of every product, whatever its shape.
inline constexpr std::int64_t kGemmWorkspace = std::int64_t{32} << 20;

// By cuBLASLt, with the algorithm that its heuristics name for this shape, or, where the context says tune_products, the
// fastest of those that they name (chosen once, kept in the context); where it has none (odd strides, a bias of another
// dtype than the result's), by gemm_plain.  `workspace`: kGemmWorkspace bytes.
void gemm(Context& ctx, const Gemm& product, std::byte* workspace);

// The same by a plain kernel: any strides and alignments.
void gemm_plain(const Gemm& product);

}  // namespace caravan::ops::cuda

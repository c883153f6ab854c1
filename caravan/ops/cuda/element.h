// Elements on the device: CUDA's types for Caravan's, their arithmetic in f32 (f64 for f64), and rows of a window.
// For the .cu files of ops/cuda only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "caravan/base/error.h"
#include "caravan/tensor/tensor.h"

namespace caravan::ops::cuda {

// What elements of T are computed in, and what their statistics (rstd, lse, gradients of weights) are kept in.
template <typename T>
using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
__host__ __device__ inline Real<T> load(T value) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __bfloat162float(value);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __half2float(value);
  } else {
    return value;
  }
}

// Rounded to nearest even.
template <typename T>
__host__ __device__ inline T round_to(Real<T> value) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(value);
  } else {
    return value;
  }
}

// As exact as the library has them in the type.
__device__ inline float exponential(float value) {
  return expf(value);
}
__device__ inline double exponential(double value) {
  return exp(value);
}
__device__ inline float logarithm(float value) {
  return logf(value);
}
__device__ inline double logarithm(double value) {
  return log(value);
}

// A window as a kernel takes it: passed by value.
template <typename T>
struct Rows {
  T* base = nullptr;
  std::int64_t stride = 0;  // in elements

  Rows() = default;
  explicit Rows(const Tensor& tensor) : base(reinterpret_cast<T*>(tensor.address())), stride(tensor.row_stride()) {}
  __host__ __device__ T* operator[](std::int64_t row) const { return base + row * stride; }
};

template <typename T>
T* elements(const Tensor& tensor) {
  return tensor.defined() ? reinterpret_cast<T*>(tensor.address()) : nullptr;
}

// Whether rows (a vector is one) begin at multiples of 16 bytes and are whole multiples of 16 bytes long: what wide
// accesses ask for.
inline bool wide(const Tensor& tensor) {
  const std::int64_t size = size_of(tensor.dtype());
  const bool vector = tensor.shape().rank() == 1;
  const std::int64_t columns = vector ? tensor.elements() : tensor.columns();
  return reinterpret_cast<std::uintptr_t>(tensor.address()) % 16 == 0 && columns * size % 16 == 0 &&
         (vector || tensor.rows() <= 1 || tensor.row_stride() * size % 16 == 0);
}

// Calls body.operator()<T>() with the device's scalar type of a compute float.
template <typename Body>
void with_element(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kF64:
      return body.template operator()<double>();
    case DType::kF32:
      return body.template operator()<float>();
    case DType::kBF16:
      return body.template operator()<__nv_bfloat16>();
    case DType::kF16:
      return body.template operator()<__half>();
    default:
      throw ShapeError("ops/cuda: a compute float was expected");
  }
}

}  // namespace caravan::ops::cuda

// How the reference reads and writes elements: every dtype becomes a double on load and is rounded once on store.
#pragma once

#include <cstdint>

#include "caravan/base/error.h"
#include "caravan/ops/context.h"
#include "caravan/tensor/tensor.h"

namespace caravan::ops::ref {

inline double load(double value) {
  return value;
}
inline double load(float value) {
  return value;
}
inline double load(BFloat16 value) {
  return static_cast<float>(value);
}
inline double load(Float16 value) {
  return static_cast<float>(value);
}

// `value` as a T: rounded to nearest even.
template <typename T>
T round_to(double value) {
  return static_cast<T>(value);
}
template <>
inline BFloat16 round_to<BFloat16>(double value) {
  return round_to_bf16(value);
}
template <>
inline Float16 round_to<Float16>(double value) {
  return round_to_f16(value);
}

// `value` as the element's new value, or added to the one it has; one rounding either way.
template <typename T>
void store(T& element, double value, Accumulate accumulate) {
  element = round_to<T>(accumulate == Accumulate::kAdd ? load(element) + value : value);
}

// The rows of a tensor: rows[i] points at the first element of row i.
template <typename T>
class Rows {
 public:
  explicit Rows(const Tensor& tensor) : first_(reinterpret_cast<T*>(tensor.address())), stride_(tensor.row_stride()) {}

  T* operator[](std::int64_t row) const { return first_ + row * stride_; }

 private:
  T* first_;
  std::int64_t stride_;
};

// The elements of a tensor of one axis.
template <typename T>
T* elements(const Tensor& tensor) {
  return reinterpret_cast<T*>(tensor.address());
}

// Calls body.operator()<T>() with the C++ type of a compute float dtype.
template <typename Body>
void with_float_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kF64:
      return body.template operator()<double>();
    case DType::kF32:
      return body.template operator()<float>();
    case DType::kBF16:
      return body.template operator()<BFloat16>();
    case DType::kF16:
      return body.template operator()<Float16>();
    default:
      throw ShapeError("the reference computes in f64, f32, bf16 and f16 only");
  }
}

// Calls body.operator()<T, S>() with the types of a compute float dtype and of the statistics and weight gradients that
// go with it: f64 for f64, else f32.
template <typename Body>
void with_float_types(DType dtype, const Body& body) {
  if (dtype == DType::kF64) {
    return body.template operator()<double, double>();
  }
  with_float_type(dtype, [&]<typename T>() { body.template operator()<T, float>(); });
}

}  // namespace caravan::ops::ref

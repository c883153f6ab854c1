// How the reference reads and writes elements: every dtype becomes a double on load and is rounded once on store.
#pragma once

#include <cstdint>

#include "caravan/base/error.h"
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

}  // namespace caravan::ops::ref

#include "caravan/ops/argument_check.h"

#include <fmt/format.h>

#include "caravan/base/error.h"

namespace caravan::ops {
namespace {

// Bytes from the first element to behind the last, gaps between rows included.
std::int64_t span_bytes(const Tensor& t) {
  return ((t.rows() - 1) * t.row_stride() + t.columns()) * size_of(t.dtype());
}

// Whether two windows share a byte.  Windows of one matrix (equal distance of rows) are told apart by their columns;
// windows of unlike matrices that lie in each other's span count as sharing.
bool overlap(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined() || a.elements() == 0 || b.elements() == 0) {
    return false;
  }
  const auto a_begin = reinterpret_cast<std::uintptr_t>(a.address());
  const auto b_begin = reinterpret_cast<std::uintptr_t>(b.address());
  if (b_begin < a_begin) {
    return overlap(b, a);
  }
  const auto distance = static_cast<std::int64_t>(b_begin - a_begin);
  if (distance >= span_bytes(a)) {
    return false;
  }
  const std::int64_t pitch = a.row_stride() * size_of(a.dtype());
  if (a.rows() == 1 || (b.rows() > 1 && pitch != b.row_stride() * size_of(b.dtype()))) {
    return true;
  }
  const std::int64_t shift = distance % pitch;
  return shift < a.columns() * size_of(a.dtype()) || pitch - shift < b.columns() * size_of(b.dtype());
}

bool same_window(const Tensor& a, const Tensor& b) {
  return a.address() == b.address() && a.dtype() == b.dtype() && a.shape() == b.shape() &&
         (a.row_stride() == b.row_stride() || a.rows() <= 1);
}

}  // namespace

ArgumentCheck::ArgumentCheck(const Context& ctx, const char* op) : op_(op) {
  if (ctx.allocator == nullptr) {
    throw ShapeError(fmt::format("{}: the context has no allocator; make it with make_context()", op));
  }
  device_ = ctx.allocator->device();
}

void ArgumentCheck::fail(const char* argument, const std::string& expected, const std::string& found) const {
  throw ShapeError(fmt::format("{}: argument {}: expected {}, found {}", op_, argument, expected, found));
}

void ArgumentCheck::require(bool holds, const char* argument, const std::string& expected,
                            const std::string& found) const {
  if (!holds) {
    fail(argument, expected, found);
  }
}

void ArgumentCheck::placed(const char* argument, const Tensor& tensor) const {
  if (!tensor.defined()) {
    fail(argument, "a tensor", "none");
  }
  if (!(tensor.device() == device_)) {
    fail(argument, "a tensor on the context's device " + to_string(device_), to_string(tensor));
  }
}

void ArgumentCheck::floats(const char* argument, const Tensor& tensor) const {
  placed(argument, tensor);
  if (!is_compute_float(tensor.dtype())) {
    fail(argument, "f64, f32, bf16 or f16", to_string(tensor));
  }
}

void ArgumentCheck::float_matrix(const char* argument, const Tensor& tensor) const {
  placed(argument, tensor);
  if (tensor.shape().rank() != 2 || !is_compute_float(tensor.dtype())) {
    fail(argument, "two axes of f64, f32, bf16 or f16", to_string(tensor));
  }
}

void ArgumentCheck::window(const char* argument, const Tensor& tensor, DType dtype, const Shape& shape) const {
  placed(argument, tensor);
  if (tensor.dtype() != dtype || !(tensor.shape() == shape)) {
    fail(argument, fmt::format("{} {}", to_string(dtype), to_string(shape)), to_string(tensor));
  }
}

void ArgumentCheck::whole(const char* argument, const Tensor& tensor, DType dtype, const Shape& shape) const {
  window(argument, tensor, dtype, shape);
  if (!tensor.contiguous()) {
    fail(argument, "rows without gaps",
         fmt::format("rows of {} that stand {} elements apart", tensor.columns(), tensor.row_stride()));
  }
}

void ArgumentCheck::weight_matrix(const char* argument, const Weight& weight) const {
  if (!weight.is_in_blocks()) {
    float_matrix(argument, weight.source());
  }
}

void ArgumentCheck::trainable(const char* argument, const Weight& weight) const {
  require(!weight.is_in_blocks(), argument,
          "a weight of numbers (no gradient goes through blocks; load it dequantised)",
          fmt::format("{} blocks", to_string(weight.shape())));
}

void ArgumentCheck::weight(const char* argument, const Weight& weight, DType dtype, const Shape& shape) const {
  if (weight.is_in_blocks()) {
    require(weight.shape() == shape && weight.dtype() == dtype, argument,
            fmt::format("{} {}", to_string(dtype), to_string(shape)),
            fmt::format("blocks {} for {}", to_string(weight.shape()), to_string(weight.dtype())));
    return;
  }
  whole(argument, weight.source(), weight.is_rounded() ? weight.source().dtype() : dtype, shape);
  if (weight.dtype() != dtype) {
    fail(argument, to_string(dtype),
         fmt::format("{} rounded to {}", to_string(weight.source()), to_string(weight.dtype())));
  }
}

void ArgumentCheck::disjoint(const char* argument, const Tensor& tensor, const char* other_argument,
                             const Tensor& other) const {
  if (overlap(tensor, other)) {
    fail(argument, fmt::format("no element in common with {}", other_argument), "an overlap");
  }
}

void ArgumentCheck::same_or_disjoint(const char* argument, const Tensor& tensor, const char* other_argument,
                                     const Tensor& other) const {
  if (overlap(tensor, other) && !same_window(tensor, other)) {
    fail(argument, fmt::format("the elements of {} or none of them", other_argument), "a partial overlap");
  }
}

DType statistics_dtype(DType dtype) {
  return dtype == DType::kF64 ? DType::kF64 : DType::kF32;
}

}  // namespace caravan::ops

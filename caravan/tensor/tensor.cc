#include "caravan/tensor/tensor.h"

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "caravan/base/error.h"

namespace caravan {
namespace {

// The address `elements` further on; a tensor without memory has none.
std::byte* advance(std::byte* data, std::int64_t elements, DType dtype) {
  return data == nullptr ? nullptr : data + elements * size_of(dtype);
}

}  // namespace

Tensor::Tensor(DType dtype, const Shape& shape, Device device, std::byte* data, std::shared_ptr<const void> owner,
               std::int64_t row_stride)
    : data_(data), owner_(std::move(owner)), shape_(shape), device_(device), dtype_(dtype), defined_(true) {
  const std::int64_t width = columns();
  row_stride_ = row_stride == 0 ? width : row_stride;
  if (row_stride_ < width) {
    throw ShapeError(fmt::format("tensor {} {}: a row of {} elements is wider than the row stride {}",
                                 caravan::to_string(dtype), caravan::to_string(shape), width, row_stride));
  }
  // From the first element to one row stride past the last row, in bytes.
  std::int64_t span = 0;
  if (__builtin_mul_overflow(rows(), row_stride_, &span) ||
      __builtin_mul_overflow(span, std::int64_t{size_of(dtype)}, &span)) {
    throw ShapeError(fmt::format("tensor {} {} of row stride {}: larger than the address space",
                                 caravan::to_string(dtype), caravan::to_string(shape), row_stride_));
  }
  if (data == nullptr && elements() > 0) {
    throw ShapeError(fmt::format("tensor {} {}: has no memory", caravan::to_string(dtype), caravan::to_string(shape)));
  }
}

std::int64_t Tensor::rows() const {
  return shape_.rank() == 0 ? 1 : shape_[0];
}

std::int64_t Tensor::columns() const {
  std::int64_t product = 1;
  for (int axis = 1; axis < shape_.rank(); ++axis) {
    product *= shape_[axis];
  }
  return product;
}

Tensor Tensor::row_range(std::int64_t begin, std::int64_t end) const {
  if (!defined_ || shape_.rank() == 0 || begin < 0 || end < begin || end > rows()) {
    throw ShapeError(fmt::format("row_range: rows [{}, {}) do not lie in {}", begin, end, caravan::to_string(*this)));
  }
  std::array<std::int64_t, Shape::kMaxRank> extents{};
  for (int axis = 0; axis < shape_.rank(); ++axis) {
    extents[static_cast<std::size_t>(axis)] = shape_[axis];
  }
  extents[0] = end - begin;
  Tensor view = *this;
  view.shape_ = Shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(shape_.rank())));
  view.data_ = advance(data_, begin * row_stride_, dtype_);
  return view;
}

Tensor Tensor::column_range(std::int64_t begin, std::int64_t end) const {
  if (!defined_ || shape_.rank() != 2 || begin < 0 || end < begin || end > columns()) {
    throw ShapeError(fmt::format("column_range: columns [{}, {}) do not lie in {}, which must have rank 2", begin, end,
                                 caravan::to_string(*this)));
  }
  Tensor view = *this;
  view.shape_ = {shape_[0], end - begin};
  view.data_ = advance(data_, begin, dtype_);
  return view;
}

Tensor Tensor::reshape(const Shape& shape) const {
  const auto refuse = [&](const char* reason) {
    throw ShapeError(
        fmt::format("reshape of {} to {}: {}", caravan::to_string(*this), caravan::to_string(shape), reason));
  };
  if (!defined_) {
    refuse("there is no tensor");
  }
  if (shape.elements() != elements()) {
    refuse("the numbers of elements differ");
  }
  Tensor view = *this;
  view.shape_ = shape;
  if (contiguous()) {
    view.row_stride_ = view.columns();
  } else if (shape.rank() == 0 || shape[0] != shape_[0] || view.columns() != columns()) {
    refuse("the rows are strided, so axis 0 must stay");
  }
  return view;
}

std::string to_string(const Tensor& tensor) {
  if (!tensor.defined()) {
    return "an undefined tensor";
  }
  return fmt::format("{} {} on {}", to_string(tensor.dtype()), to_string(tensor.shape()), to_string(tensor.device()));
}

}  // namespace caravan

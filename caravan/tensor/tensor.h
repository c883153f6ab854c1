// A typed, row-strided window onto memory that somebody owns.
//
// Axis 0 is the row axis.  A row's elements are contiguous; consecutive rows stand `row_stride` elements apart.  So a
// view is a range of rows, or (of a rank-2 tensor) a range of columns, and q|k|v or gate|up are column ranges of one
// product. Copying a Tensor copies the window, never the elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "caravan/tensor/device.h"
#include "caravan/tensor/dtype.h"
#include "caravan/tensor/shape.h"

namespace caravan {

class Tensor {
 public:
  Tensor() = default;  // no elements, no memory: `defined()` is false

  // `row_stride` in elements; 0 means contiguous.  Throws ShapeError when a row is wider than the stride.
  Tensor(DType dtype, const Shape& shape, Device device, std::byte* data, std::shared_ptr<const void> owner,
         std::int64_t row_stride = 0);

  bool defined() const { return defined_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  const Device& device() const { return device_; }
  std::int64_t row_stride() const { return row_stride_; }
  const std::shared_ptr<const void>& owner() const { return owner_; }

  // Axis 0 (1 for rank 0), and the product of the others.
  std::int64_t rows() const;
  std::int64_t columns() const;
  std::int64_t elements() const { return shape_.elements(); }
  // Bytes of the elements, gaps between rows not counted.
  std::int64_t bytes() const { return elements() * size_of(dtype_); }
  bool contiguous() const { return row_stride_ == columns() || rows() <= 1; }

  // Rows [begin, end).  Throws ShapeError outside the tensor.
  Tensor row_range(std::int64_t begin, std::int64_t end) const;
  // Columns [begin, end) of a rank-2 tensor.  Throws ShapeError for another rank or outside the tensor.
  Tensor column_range(std::int64_t begin, std::int64_t end) const;
  // The same elements in another shape.  Axis 0 may change only when the tensor is contiguous; otherwise only the row's
  // inner axes may.  Throws ShapeError.
  Tensor reshape(const Shape& shape) const;

  // The address of the first element, on whatever device it is.  Only ops/cpu, ops/ref, comm and this room's device
  // files may follow it: a test scans for other users.
  std::byte* address() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::shared_ptr<const void> owner_;
  Shape shape_;
  std::int64_t row_stride_ = 0;
  Device device_;
  DType dtype_ = DType::kF32;
  bool defined_ = false;
};

// "bf16 [131, 32] on host"
std::string to_string(const Tensor& tensor);

}  // namespace caravan

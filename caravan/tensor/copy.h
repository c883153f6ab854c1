// Bytes between host memory and tensors on any device, and element conversion of plain host arrays.
//
// This is the only door between files or command lines and tensors: other rooms do not follow Tensor::address().
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "caravan/tensor/allocator.h"

namespace caravan {

namespace cuda_memory {
class LateCopy;
}

// Fills `dst` from as many bytes in row-major order, same dtype, after all that was asked of its device before.  `src`
// may be changed when the call returns.  On the meta device it does nothing.
// Throws ShapeError when the sizes differ.
void copy_from_host(const Tensor& dst, std::span<const std::byte> src);

// Writes the elements of `src` in row-major order, when its device has done all it was asked before.  Throws ShapeError when the sizes differ or the device is meta.
void copy_to_host(std::span<std::byte> dst, const Tensor& src);

// A tensor of Segment::kActivations with these elements, [values] unless a shape is given.  On the meta device it has
// none.  Throws ShapeError when the shape has another number of elements, OutOfMemoryError.
Tensor to_device(Allocator& allocator, const std::vector<std::int32_t>& values);
Tensor to_device(Allocator& allocator, const std::vector<float>& values, const Shape& shape);

// Converts `count` elements between any two of f64, f32, bf16 and f16, rounding once, to nearest even.
// Throws ShapeError for other types.
void convert_elements(DType dst_dtype, std::byte* dst, DType src_dtype, const std::byte* src, std::int64_t count);

// Copies of one small tensor that the host reads later than it asks for them, so that the device need not wait for the
// host nor the host for the device.  Elsewhere than on a GPU a copy is made when it is asked for.
// T: std::int32_t or double, as the tensor's elements are.
template <typename T>
class Mailbox {
 public:
  // Of a contiguous tensor.  Throws ShapeError for one of other elements, or with gaps.
  explicit Mailbox(const Tensor& tensor);
  // Asks for a copy of what the tensor holds when everything asked for before is done.
  void post();
  // The oldest copy that was not taken yet; waits for it.  Throws ShapeError when there is none.
  std::vector<T> take();

 private:
  Tensor tensor_;
  std::deque<std::shared_ptr<cuda_memory::LateCopy>> under_way_;
  std::vector<std::shared_ptr<cuda_memory::LateCopy>> spare_;
  std::deque<std::vector<T>> made_;
};
extern template class Mailbox<std::int32_t>;
extern template class Mailbox<double>;

// Waits for the device.  The elements of a float tensor as doubles or floats, of an integer tensor as i64, in row-major order.
std::vector<double> to_doubles(const Tensor& tensor);
std::vector<float> to_floats(const Tensor& tensor);

// The index of the first NaN or infinity among `count` elements of a float type, or -1.
std::int64_t first_non_finite(DType dtype, const std::byte* data, std::int64_t count);

}  // namespace caravan

// Host tensors from plain numbers, and back.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "caravan/tensor/allocator.h"
#include "caravan/tensor/copy.h"

namespace caravan::test {

inline constexpr DType kAllTypes[] = {DType::kF64,    DType::kF32,  DType::kBF16, DType::kF16, DType::kF8E4M3,
                                      DType::kF8E5M2, DType::kE8M0, DType::kI64,  DType::kI32, DType::kU8};
inline constexpr DType kSummedTypes[] = {DType::kF64, DType::kF32, DType::kBF16, DType::kF16, DType::kI64};

// Hands out tensors of one slab; ranks may share it.
class HostTensors {
 public:
  Tensor empty(DType dtype, const Shape& shape) { return host_->allocate(dtype, shape, Segment::kWorkspace); }
  Tensor meta(DType dtype, const Shape& shape) { return meta_->allocate(dtype, shape, Segment::kWorkspace); }

  // The bytes `first`, first + 1, ... (modulo 251, so that no two ranks or rows look alike by accident).
  Tensor counted(DType dtype, const Shape& shape, int first) {
    const Tensor tensor = empty(dtype, shape);
    copy_from_host(tensor, counted_bytes(tensor.bytes(), first));
    return tensor;
  }

  static std::vector<std::byte> counted_bytes(std::int64_t count, int first) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::byte>((static_cast<std::size_t>(first) + i) % 251);
    }
    return bytes;
  }

  // Small whole numbers, exact in every summed type.
  Tensor whole_numbers(DType dtype, const Shape& shape, const std::vector<double>& values) {
    const Tensor tensor = empty(dtype, shape);
    std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes()));
    if (dtype == DType::kI64) {
      const std::vector<std::int64_t> numbers(values.begin(), values.end());
      copy_from_host(tensor, std::as_bytes(std::span(numbers)));
    } else {
      convert_elements(dtype, bytes.data(), DType::kF64, reinterpret_cast<const std::byte*>(values.data()),
                       tensor.elements());
      copy_from_host(tensor, bytes);
    }
    return tensor;
  }

 private:
  std::shared_ptr<Allocator> host_ = Allocator::host(std::int64_t{1} << 22);
  std::shared_ptr<Allocator> meta_ = Allocator::meta();
};

inline std::vector<std::byte> bytes_of(const Tensor& tensor) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes()));
  copy_to_host(bytes, tensor);
  return bytes;
}

}  // namespace caravan::test

#include "caravan/tensor/copy.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <type_traits>

#include "caravan/base/error.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan {
namespace {

// Rows of a host tensor as the byte ranges they are; a contiguous tensor is one range.  Calls body(address, bytes).
template <typename Body>
void for_each_run(const Tensor& tensor, const Body& body) {
  if (tensor.elements() == 0) {
    return;
  }
  if (tensor.contiguous()) {
    body(tensor.address(), tensor.bytes());
    return;
  }
  const std::int64_t size = size_of(tensor.dtype());
  for (std::int64_t row = 0; row < tensor.rows(); ++row) {
    body(tensor.address() + row * tensor.row_stride() * size, tensor.columns() * size);
  }
}

void require_bytes(const Tensor& tensor, const char* function) {
  if (!tensor.defined() || tensor.device().kind == DeviceKind::kMeta) {
    throw ShapeError(fmt::format("{}: a tensor with memory behind it expected, found {}", function, to_string(tensor)));
  }
}

// The tensor, or a copy in host memory of one on a device.
Tensor on_host(const Tensor& tensor) {
  if (tensor.device().kind == DeviceKind::kHost) {
    return tensor;
  }
  const auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(tensor.bytes()));
  copy_to_host(*bytes, tensor);
  return Tensor(tensor.dtype(), tensor.shape(), {}, bytes->data(), bytes);
}

void require_size(const Tensor& tensor, std::size_t bytes, const char* function) {
  if (static_cast<std::size_t>(tensor.bytes()) != bytes) {
    throw ShapeError(
        fmt::format("{}: {} bytes for {}, which has {}", function, bytes, to_string(tensor), tensor.bytes()));
  }
}

// From one float type to another with one rounding.  The small types widen to float exactly.
template <typename Dst, typename Src>
Dst converted(Src value) {
  if constexpr (std::is_same_v<Src, double> && std::is_same_v<Dst, BFloat16>) {
    return round_to_bf16(value);
  } else if constexpr (std::is_same_v<Src, double> && std::is_same_v<Dst, Float16>) {
    return round_to_f16(value);
  } else if constexpr (std::is_same_v<Src, double>) {
    return static_cast<Dst>(value);
  } else {
    return static_cast<Dst>(static_cast<float>(value));
  }
}

// Elements are moved by memcpy: files promise no alignment.
template <typename Dst, typename Src>
void convert_loop(std::byte* dst, const std::byte* src, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    Src value;
    std::memcpy(&value, src + i * static_cast<std::int64_t>(sizeof(Src)), sizeof(Src));
    const Dst result = converted<Dst>(value);
    std::memcpy(dst + i * static_cast<std::int64_t>(sizeof(Dst)), &result, sizeof(Dst));
  }
}

// Calls body.operator()<T>() with the scalar type of a compute float.
template <typename Body>
void with_float_type(DType dtype, const char* function, const Body& body) {
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
      throw ShapeError(fmt::format("{}: f64, f32, bf16 or f16 expected, found {}", function, to_string(dtype)));
  }
}

template <typename Int>
void append_integers(std::vector<double>& result, const std::byte* data, std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += static_cast<std::int64_t>(sizeof(Int))) {
    Int value;
    std::memcpy(&value, data + at, sizeof(Int));
    result.push_back(static_cast<double>(value));
  }
}

template <typename Real>
std::vector<Real> to_reals(const Tensor& anywhere, DType real_dtype, const char* function) {
  require_bytes(anywhere, function);
  const Tensor tensor = on_host(anywhere);
  std::vector<Real> result(static_cast<std::size_t>(tensor.elements()));
  std::byte* out = reinterpret_cast<std::byte*>(result.data());
  const std::int64_t size = size_of(tensor.dtype());
  for_each_run(tensor, [&](const std::byte* data, std::int64_t bytes) {
    convert_elements(real_dtype, out, tensor.dtype(), data, bytes / size);
    out += bytes / size * static_cast<std::int64_t>(sizeof(Real));
  });
  return result;
}

// Blocks are searched without a branch an element, which compilers turn into vector code; only a block with a find is
// walked.
template <typename Word>
std::int64_t first_with_exponent(const std::byte* data, std::int64_t count, Word exponent) {
  constexpr std::int64_t kBlock = 1024;
  const auto word_at = [data](std::int64_t i) {
    Word word;
    std::memcpy(&word, data + i * static_cast<std::int64_t>(sizeof(Word)), sizeof(Word));
    return word;
  };
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t end = begin + std::min(kBlock, count - begin);
    Word found = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      found = static_cast<Word>(found | static_cast<Word>((word_at(i) & exponent) == exponent));
    }
    for (std::int64_t i = begin; found != 0 && i < end; ++i) {
      if ((word_at(i) & exponent) == exponent) {
        return i;
      }
    }
  }
  return -1;
}

}  // namespace

void copy_from_host(const Tensor& dst, std::span<const std::byte> src) {
  require_size(dst, src.size(), "copy_from_host");
  if (dst.defined() && dst.device().kind == DeviceKind::kMeta) {
    return;
  }
  require_bytes(dst, "copy_from_host");
  if (dst.device().kind == DeviceKind::kCuda) {
    if (dst.elements() > 0) {
      const std::int64_t size = size_of(dst.dtype());
      cuda_memory::copy_in(dst.device().index, dst.address(), dst.row_stride() * size, src.data(), dst.columns() * size,
                           dst.rows());
    }
    return;
  }
  const std::byte* from = src.data();
  for_each_run(dst, [&from](std::byte* data, std::int64_t bytes) {
    std::memcpy(data, from, static_cast<std::size_t>(bytes));
    from += bytes;
  });
}

void copy_to_host(std::span<std::byte> dst, const Tensor& src) {
  require_bytes(src, "copy_to_host");
  require_size(src, dst.size(), "copy_to_host");
  if (src.device().kind == DeviceKind::kCuda) {
    if (src.elements() > 0) {
      const std::int64_t size = size_of(src.dtype());
      cuda_memory::copy_out(src.device().index, dst.data(), src.address(), src.row_stride() * size,
                            src.columns() * size, src.rows());
    }
    return;
  }
  std::byte* to = dst.data();
  for_each_run(src, [&to](const std::byte* data, std::int64_t bytes) {
    std::memcpy(to, data, static_cast<std::size_t>(bytes));
    to += bytes;
  });
}

Tensor to_device(Allocator& allocator, const std::vector<std::int32_t>& values) {
  const Tensor tensor =
      allocator.allocate(DType::kI32, {static_cast<std::int64_t>(values.size())}, Segment::kActivations);
  copy_from_host(tensor, std::as_bytes(std::span(values)));
  return tensor;
}

Tensor to_device(Allocator& allocator, const std::vector<float>& values, const Shape& shape) {
  const Tensor tensor = allocator.allocate(DType::kF32, shape, Segment::kActivations);
  copy_from_host(tensor, std::as_bytes(std::span(values)));
  return tensor;
}

template <typename T>
Mailbox<T>::Mailbox(const Tensor& tensor) : tensor_(tensor) {
  constexpr DType kDType = std::is_same_v<T, double> ? DType::kF64 : DType::kI32;
  if (tensor.dtype() != kDType || !tensor.contiguous()) {
    throw ShapeError(fmt::format("Mailbox: contiguous {} expected, found {}", to_string(kDType), to_string(tensor)));
  }
}

template <typename T>
void Mailbox<T>::post() {
  if (tensor_.device().kind == DeviceKind::kCuda) {
    std::shared_ptr<cuda_memory::LateCopy> used;
    if (!spare_.empty()) {
      used = std::move(spare_.back());
      spare_.pop_back();
    }
    under_way_.push_back(
        cuda_memory::start_copy_out(tensor_.device().index, tensor_.address(), tensor_.bytes(), std::move(used)));
    return;
  }
  std::vector<T>& values = made_.emplace_back(static_cast<std::size_t>(tensor_.elements()));
  copy_to_host(std::as_writable_bytes(std::span(values)), tensor_);
}

template <typename T>
std::vector<T> Mailbox<T>::take() {
  if (!under_way_.empty()) {
    const std::shared_ptr<cuda_memory::LateCopy> copy = std::move(under_way_.front());
    under_way_.pop_front();
    std::vector<T> values(static_cast<std::size_t>(tensor_.elements()));
    std::memcpy(values.data(), cuda_memory::finish(*copy), static_cast<std::size_t>(tensor_.bytes()));
    spare_.push_back(copy);
    return values;
  }
  if (made_.empty()) {
    throw ShapeError("Mailbox: no copy was asked for");
  }
  std::vector<T> values = std::move(made_.front());
  made_.pop_front();
  return values;
}

template class Mailbox<std::int32_t>;
template class Mailbox<double>;

void convert_elements(DType dst_dtype, std::byte* dst, DType src_dtype, const std::byte* src, std::int64_t count) {
  with_float_type(dst_dtype, "convert_elements", [&]<typename Dst>() {
    with_float_type(src_dtype, "convert_elements", [&]<typename Src>() {
      if constexpr (std::is_same_v<Dst, Src>) {
        if (count > 0) {  // memcpy may not be given null, however few the bytes
          std::memcpy(dst, src, static_cast<std::size_t>(count) * sizeof(Src));
        }
      } else {
        convert_loop<Dst, Src>(dst, src, count);
      }
    });
  });
}

std::vector<double> to_doubles(const Tensor& anywhere) {
  require_bytes(anywhere, "to_doubles");
  const Tensor tensor = on_host(anywhere);
  std::vector<double> result;
  switch (tensor.dtype()) {
    case DType::kI64:
      for_each_run(tensor,
                   [&](const std::byte* data, std::int64_t n) { append_integers<std::int64_t>(result, data, n); });
      return result;
    case DType::kI32:
      for_each_run(tensor,
                   [&](const std::byte* data, std::int64_t n) { append_integers<std::int32_t>(result, data, n); });
      return result;
    case DType::kU8:
      for_each_run(tensor,
                   [&](const std::byte* data, std::int64_t n) { append_integers<std::uint8_t>(result, data, n); });
      return result;
    default:
      return to_reals<double>(tensor, DType::kF64, "to_doubles");
  }
}

std::vector<float> to_floats(const Tensor& tensor) {
  return to_reals<float>(tensor, DType::kF32, "to_floats");
}

std::int64_t first_non_finite(DType dtype, const std::byte* data, std::int64_t count) {
  switch (dtype) {
    case DType::kF64:
      return first_with_exponent<std::uint64_t>(data, count, 0x7ff0000000000000U);
    case DType::kF32:
      return first_with_exponent<std::uint32_t>(data, count, 0x7f800000U);
    case DType::kBF16:
      return first_with_exponent<std::uint16_t>(data, count, 0x7f80U);
    case DType::kF16:
      return first_with_exponent<std::uint16_t>(data, count, 0x7c00U);
    default:
      throw ShapeError(fmt::format("first_non_finite: f64, f32, bf16 or f16 expected, found {}", to_string(dtype)));
  }
}

}  // namespace caravan

// Tensors for the tests of ops: their values are functions of a name and an index alone.
#pragma once

#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include "caravan/base/philox.h"
#include "caravan/ops/context.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops::testing {

// Columns of NaN around a column range: odd, so that its rows are aligned to nothing.
inline constexpr std::int64_t kLeftGap = 3;
inline constexpr std::int64_t kRightGap = 5;

// `values` rounded to `dtype`, as doubles.
inline std::vector<double> rounded(const std::vector<double>& values, DType dtype) {
  const auto count = static_cast<std::int64_t>(values.size());
  std::vector<std::byte> bytes(values.size() * static_cast<std::size_t>(size_of(dtype)));
  std::vector<double> result(values.size());
  convert_elements(dtype, bytes.data(), DType::kF64, reinterpret_cast<const std::byte*>(values.data()), count);
  convert_elements(DType::kF64, reinterpret_cast<std::byte*>(result.data()), dtype, bytes.data(), count);
  return result;
}

// A contiguous tensor of `dtype` with these values, rounded.
inline Tensor from_doubles(Context& ctx, DType dtype, const Shape& shape, const std::vector<double>& values) {
  Tensor tensor = ctx.allocate(dtype, shape);
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes()));
  convert_elements(dtype, bytes.data(), DType::kF64, reinterpret_cast<const std::byte*>(values.data()),
                   tensor.elements());
  copy_from_host(tensor, bytes);
  return tensor;
}

inline Tensor from_ints(Context& ctx, const std::vector<std::int32_t>& values) {
  Tensor tensor = ctx.allocate(DType::kI32, {static_cast<std::int64_t>(values.size())});
  copy_from_host(tensor, std::as_bytes(std::span(values)));
  return tensor;
}

// A tensor and the matrix it is a column range of (itself when it is not).
struct Window {
  Tensor view;
  Tensor whole;
};

// Makes the tensors of one run of a case.  A run in `store` f64 with `values` bf16 computes on the very numbers that a
// bf16 run computes on.
struct Maker {
  Context& ctx;
  DType values;             // what inputs are rounded to
  DType store;              // what they are stored as
  bool magnitudes = false;  // absolute values instead of the values

  // Uniform in (-scale, scale).  Rows whose entry in `poisoned` is true hold NaN.
  Window input(std::string_view name, std::int64_t rows, std::int64_t columns, double scale, bool strided = false,
               const std::vector<bool>& poisoned = {}) const {
    const RandomStream stream(1, name);
    const std::int64_t left = strided ? kLeftGap : 0;
    const std::int64_t pitch = columns + left + (strided ? kRightGap : 0);
    std::vector<double> all(static_cast<std::size_t>(rows * pitch), std::numeric_limits<double>::quiet_NaN());
    for (std::int64_t r = 0; r < rows; ++r) {
      if (!poisoned.empty() && poisoned[static_cast<std::size_t>(r)]) {
        continue;
      }
      for (std::int64_t c = 0; c < columns; ++c) {
        const double value = scale * (2 * stream.uniform(static_cast<std::uint64_t>(r * columns + c)) - 1);
        all[static_cast<std::size_t>(r * pitch + left + c)] = magnitudes ? std::abs(value) : value;
      }
    }
    const Tensor whole = from_doubles(ctx, store, {rows, pitch}, rounded(all, values));
    return {strided ? whole.column_range(left, left + columns) : whole, whole};
  }

  // As input(), of one axis.
  Tensor vector(std::string_view name, std::int64_t count, double scale) const {
    return input(name, 1, count, scale).view.reshape({count});
  }

  // All NaN: what the op does not write stays so.
  Window output(DType dtype, std::int64_t rows, std::int64_t columns, bool strided = false) const {
    const std::int64_t left = strided ? kLeftGap : 0;
    const std::int64_t pitch = columns + left + (strided ? kRightGap : 0);
    const std::vector<double> all(static_cast<std::size_t>(rows * pitch), std::numeric_limits<double>::quiet_NaN());
    const Tensor whole = from_doubles(ctx, dtype, {rows, pitch}, all);
    return {strided ? whole.column_range(left, left + columns) : whole, whole};
  }

  Tensor output_vector(DType dtype, std::int64_t count) const { return output(dtype, 1, count).view.reshape({count}); }

  // What an op's statistics are stored as in this run.
  DType statistics() const { return store == DType::kF64 ? DType::kF64 : DType::kF32; }
};

// Whether every element around the column range is still NaN.
inline bool gaps_untouched(const Window& window) {
  const std::int64_t pitch = window.whole.columns();
  const std::int64_t columns = window.view.columns();
  const std::vector<double> all = to_doubles(window.whole);
  for (std::size_t i = 0; i < all.size() && pitch != columns; ++i) {
    const std::int64_t column = static_cast<std::int64_t>(i) % pitch;
    const bool inside = column >= kLeftGap && column < kLeftGap + columns;
    if (!inside && all[i] == all[i]) {
      return false;
    }
  }
  return true;
}

}  // namespace caravan::ops::testing

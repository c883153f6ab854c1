// Element types and the scalar forms of the small floats.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace caravan {

enum class DType : std::uint8_t { kF64, kF32, kBF16, kF16, kF8E4M3, kF8E5M2, kE8M0, kI64, kI32, kU8 };

// Bytes of one element.
int size_of(DType dtype);

// "f64", "f32", "bf16", "f16", "f8e4m3", "f8e5m2", "e8m0", "i64", "i32", "u8": the words of the command line and of
// messages.
const char* to_string(DType dtype);

// The dtype of that name, or nothing.
std::optional<DType> parse_dtype(std::string_view name);

// f64, f32, bf16 and f16: the types that activations and weights are computed in.
bool is_compute_float(DType dtype);

// Significant bits with the implied one: f64 53, f32 24, f16 11, bf16 8.  Throws ShapeError for other types.
int significand_bits(DType dtype);

// The upper half of an f32.  Conversion from float rounds to nearest, ties to even; NaN stays NaN.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const std::uint32_t word = std::bit_cast<std::uint32_t>(value);
    const bool nan = (word & 0x7fffffffU) > 0x7f800000U;
    bits = static_cast<std::uint16_t>(nan ? (word >> 16) | 0x40U : (word + 0x7fffU + ((word >> 16) & 1U)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

// IEEE 754 binary16.  Conversion from float rounds to nearest, ties to even, overflows to infinity.
struct Float16 {
  std::uint16_t bits = 0;

  Float16() = default;
  explicit Float16(float value);
  explicit operator float() const;
};

// An f64 rounded straight to the small type: rounding by way of f32 would round twice.
BFloat16 round_to_bf16(double value);
Float16 round_to_f16(double value);

}  // namespace caravan

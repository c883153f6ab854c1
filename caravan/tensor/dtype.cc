#include "caravan/tensor/dtype.h"

#include <fmt/format.h>

#include <array>

#include "caravan/base/error.h"

namespace caravan {
namespace {

struct Facts {
  const char* name;
  int size;
  int significand_bits;  // 0: not computed in
};

// In the order of DType.
constexpr std::array<Facts, 10> kFacts = {{
    {"f64", 8, 53},
    {"f32", 4, 24},
    {"bf16", 2, 8},
    {"f16", 2, 11},
    {"f8e4m3", 1, 0},
    {"f8e5m2", 1, 0},
    {"e8m0", 1, 0},
    {"i64", 8, 0},
    {"i32", 4, 0},
    {"u8", 1, 0},
}};

const Facts& facts(DType dtype) {
  return kFacts[static_cast<std::size_t>(dtype)];
}

// The bits of `value` in an IEEE-like 16-bit format of `kFraction` fraction bits: one rounding, to nearest even.
template <int kFraction>
std::uint16_t round_to_16_bits(double value) {
  constexpr int kBias = (1 << (14 - kFraction)) - 1;
  constexpr int kLowestExponent = 1 - kBias;
  constexpr std::uint32_t kInfinity = 0x7fffU & ~((1U << kFraction) - 1U);
  const std::uint64_t word = std::bit_cast<std::uint64_t>(value);
  const std::uint32_t sign = static_cast<std::uint32_t>(word >> 48) & 0x8000U;
  const std::uint64_t fraction = word & 0xfffffffffffffU;
  const int exponent = static_cast<int>((word >> 52) & 0x7ffU) - 1023;
  if (exponent == 1024) {
    const std::uint32_t quiet =
        fraction == 0 ? 0U : (1U << (kFraction - 1)) | static_cast<std::uint32_t>(fraction >> (52 - kFraction));
    return static_cast<std::uint16_t>(sign | kInfinity | quiet);
  }
  if (exponent > kBias) {
    return static_cast<std::uint16_t>(sign | kInfinity);
  }
  // Below the lowest exponent the result's last bit stays where it is, and more of the significand falls off.
  const int dropped = 52 - kFraction + (exponent < kLowestExponent ? kLowestExponent - exponent : 0);
  if (dropped > 53) {
    return static_cast<std::uint16_t>(sign);  // below half of the smallest subnormal
  }
  const std::uint64_t significand = fraction | (std::uint64_t{1} << 52);
  const std::uint64_t half = std::uint64_t{1} << (dropped - 1);
  const std::uint64_t rest = significand & (2 * half - 1);
  std::uint64_t kept = significand >> dropped;
  kept += (rest > half || (rest == half && (kept & 1U) != 0)) ? 1U : 0U;
  // `kept` holds the implied bit of a normal number, which adds one to the exponent field; a carry out of the rounding
  // does the same, up to infinity.
  const int field = exponent < kLowestExponent ? 0 : exponent + kBias - 1;
  return static_cast<std::uint16_t>(
      sign | ((static_cast<std::uint32_t>(field) << kFraction) + static_cast<std::uint32_t>(kept)));
}

}  // namespace

int size_of(DType dtype) {
  return facts(dtype).size;
}

const char* to_string(DType dtype) {
  return facts(dtype).name;
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (std::size_t i = 0; i < kFacts.size(); ++i) {
    if (name == kFacts[i].name) {
      return static_cast<DType>(i);
    }
  }
  return std::nullopt;
}

bool is_compute_float(DType dtype) {
  return facts(dtype).significand_bits > 0;
}

int significand_bits(DType dtype) {
  if (!is_compute_float(dtype)) {
    throw ShapeError(fmt::format("significand_bits: f64, f32, bf16 or f16 expected, found {}", to_string(dtype)));
  }
  return facts(dtype).significand_bits;
}

Float16::Float16(float value) : bits(round_to_16_bits<10>(value)) {}  // every float is a double: one rounding

Float16::operator float() const {
  const std::uint32_t sign = (bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fU;
  const std::uint32_t fraction = bits & 0x3ffU;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, exact
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  const std::uint32_t wide_exponent = exponent == 31 ? 255 : exponent - 15 + 127;
  return std::bit_cast<float>(sign | (wide_exponent << 23) | (fraction << 13));
}

BFloat16 round_to_bf16(double value) {
  BFloat16 result;
  result.bits = round_to_16_bits<7>(value);
  return result;
}

Float16 round_to_f16(double value) {
  Float16 result;
  result.bits = round_to_16_bits<10>(value);
  return result;
}

}  // namespace caravan

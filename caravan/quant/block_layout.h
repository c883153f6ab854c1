// Where scales and codes lie in a block.  Private to this room.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "caravan/tensor/dtype.h"

namespace caravan::quant {

constexpr int kBlock = 32;        // codes of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0
constexpr int kSuperBlock = 256;  // codes of the K types
constexpr int kKScaleBytes = 12;  // of Q3_K, Q4_K and Q5_K

inline float load_f16(const std::byte* at) {
  Float16 value;
  std::memcpy(&value.bits, at, sizeof value.bits);
  return static_cast<float>(value);
}

inline void store_f16(std::byte* at, float value) {
  const Float16 rounded(value);
  std::memcpy(at, &rounded.bits, sizeof rounded.bits);
}

inline std::uint8_t byte_at(const std::byte* data, int i) {
  return std::to_integer<std::uint8_t>(data[i]);
}

// The eight scales and eight offsets of Q4_K and Q5_K, six bits each.  The first four of either lie in the low bits of
// bytes 0 to 3 and 4 to 7; the others have their low four bits in bytes 8 to 11 (scales below, offsets above) and their
// high two bits on top of the first eight bytes.
struct KScales {
  std::array<std::uint8_t, 8> scale;
  std::array<std::uint8_t, 8> offset;
};

inline KScales unpack_k_scales(const std::byte* packed) {
  KScales result{};
  for (int i = 0; i < 4; ++i) {
    const std::uint8_t a = byte_at(packed, i);
    const std::uint8_t b = byte_at(packed, 4 + i);
    const std::uint8_t c = byte_at(packed, 8 + i);
    const auto at = static_cast<std::size_t>(i);
    result.scale[at] = a & 63U;
    result.offset[at] = b & 63U;
    result.scale[at + 4] = static_cast<std::uint8_t>((c & 15U) | ((a >> 6) << 4));
    result.offset[at + 4] = static_cast<std::uint8_t>((c >> 4) | ((b >> 6) << 4));
  }
  return result;
}

inline void pack_k_scales(std::byte* packed, const KScales& scales) {
  for (int i = 0; i < 4; ++i) {
    const auto at = static_cast<std::size_t>(i);
    packed[i] = std::byte(scales.scale[at] | ((scales.scale[at + 4] >> 4) << 6));
    packed[4 + i] = std::byte(scales.offset[at] | ((scales.offset[at + 4] >> 4) << 6));
    packed[8 + i] = std::byte((scales.scale[at + 4] & 15U) | ((scales.offset[at + 4] & 15U) << 4));
  }
}

}  // namespace caravan::quant

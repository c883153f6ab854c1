#include "caravan/comm/sum.h"

#include <algorithm>
#include <cstring>

namespace caravan::comm {
namespace {

// By blocks that stay in the first-level cache: values and sums together take at most 8 KiB.
template <typename Element, typename Sum>
void sum_blocks(std::span<const std::byte* const> sources, std::span<std::byte* const> destinations,
                std::int64_t count) noexcept {
  constexpr std::int64_t kBlock = 512;
  constexpr std::int64_t kSize = sizeof(Element);
  Element values[kBlock];
  Sum sums[kBlock] = {};
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t length = std::min(kBlock, count - begin);
    const auto bytes = static_cast<std::size_t>(length * kSize);
    for (std::size_t rank = 0; rank < sources.size(); ++rank) {
      std::memcpy(values, sources[rank] + begin * kSize, bytes);
      if (rank == 0) {
        for (std::int64_t i = 0; i < length; ++i) {
          sums[i] = static_cast<Sum>(values[i]);
        }
      } else {
        for (std::int64_t i = 0; i < length; ++i) {
          sums[i] += static_cast<Sum>(values[i]);
        }
      }
    }
    for (std::int64_t i = 0; i < length; ++i) {
      values[i] = static_cast<Element>(sums[i]);
    }
    for (std::byte* destination : destinations) {
      std::memcpy(destination + begin * kSize, values, bytes);
    }
  }
}

}  // namespace

bool has_sum(DType dtype) {
  return is_compute_float(dtype) || dtype == DType::kI64;
}

void sum_in_order(DType dtype, std::span<const std::byte* const> sources, std::span<std::byte* const> destinations,
                  std::int64_t count) noexcept {
  switch (dtype) {
    case DType::kF64:
      return sum_blocks<double, double>(sources, destinations, count);
    case DType::kF32:
      return sum_blocks<float, float>(sources, destinations, count);
    case DType::kBF16:
      return sum_blocks<BFloat16, float>(sources, destinations, count);
    case DType::kF16:
      return sum_blocks<Float16, float>(sources, destinations, count);
    case DType::kI64:
      return sum_blocks<std::int64_t, std::uint64_t>(sources, destinations, count);
    default:
      return;
  }
}

}  // namespace caravan::comm

// What sampling computes the same on the processor and on a GPU.  For ops/sampling.cc and ops/cuda only.
#pragma once

#include "caravan/base/philox_arithmetic.h"

namespace caravan::ops {

// A weight of 1.  The weights of 2^23 ids at most sum up in 64 bits.
inline constexpr double kSamplingUnit = 0x1p40;

// What the tokens that top_p drops may weigh together: less than all.
CARAVAN_ANYWHERE std::uint64_t sampling_limit(double top_p, std::uint64_t total) {
  const auto limit = static_cast<std::uint64_t>((1.0 - top_p) * static_cast<double>(total));
  return limit < total ? limit : total - 1;
}

// Value `position` of a stream, as RandomStream::uniform() tells, times the total: below it.
CARAVAN_ANYWHERE std::uint64_t sampling_target(std::uint64_t seed, std::uint64_t name_hash, std::uint64_t position,
                                               std::uint64_t total) {
  const std::array<std::uint32_t, 4> words = philox::block(seed, name_hash, position);
  const auto target = static_cast<std::uint64_t>(static_cast<double>(philox::top53(words[0], words[1])) * 0x1p-53 *
                                                 static_cast<double>(total));
  return target < total ? target : total - 1;
}

}  // namespace caravan::ops

// The sum of 64-bit words, as fast as they come.
#pragma once

#include "caravan/ops/cpu/kernels/kernels.h"

namespace caravan::ops::cpu {
namespace {

// Four places side by side: a processor fetches ahead inside a page, and at the end of one it would wait.  Two vectors
// of each, which is a cache line or two.
std::uint64_t sum_words(const std::uint64_t* words, std::int64_t count) {
  using Words __attribute__((vector_size(kLanes * sizeof(float)), aligned(8), may_alias)) = std::uint64_t;
  constexpr std::int64_t kWords = sizeof(Words) / sizeof(std::uint64_t);
  constexpr std::int64_t kPlaces = 4;
  const std::int64_t part = count / (kPlaces * 2 * kWords) * 2 * kWords;
  Words sums[2 * kPlaces] = {};
  for (std::int64_t i = 0; i < part; i += 2 * kWords) {
    for (std::int64_t place = 0; place < kPlaces; ++place) {
      const auto* at = reinterpret_cast<const Words*>(words + place * part + i);
      sums[2 * place] += at[0];
      sums[2 * place + 1] += at[1];
    }
  }
  std::uint64_t sum = 0;
  for (std::int64_t k = 0; k < 2 * kPlaces; ++k) {
    for (std::int64_t i = 0; i < kWords; ++i) {
      sum += sums[k][i];
    }
  }
  for (std::int64_t i = kPlaces * part; i < count; ++i) {
    sum += words[i];
  }
  return sum;
}

}  // namespace
}  // namespace caravan::ops::cpu

// Counter-based random numbers: a value depends on (seed, name, index) alone, never on who asks or in which order.
//
// Philox4x32-10 of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3").  The key is the seed; the
// counter is the 64-bit index and a 64-bit hash of the name (FNV-1a).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace caravan {

// One block of four 32-bit words.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

// A stream of values named `name` under `seed`.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name);

  // Value `index` of the stream, uniform in [0, 1) with 53 bits.
  double uniform(std::uint64_t index) const;

  // Value `index` of the stream, normal with mean 0 and deviation 1 (Box-Muller on the index's own block).  Computed in
  // double without contraction and with our own log and cosine, so every machine gets the same bits.
  double normal(std::uint64_t index) const;

  std::uint64_t seed() const { return seed_; }
  std::uint64_t name_hash() const { return name_hash_; }

 private:
  std::uint64_t seed_;
  std::uint64_t name_hash_;
};

}  // namespace caravan

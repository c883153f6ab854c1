// Random numbers that the scripts of tests/golden draw too: integers alone, no library's logarithm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace caravan::test {

// Knuth's 64-bit linear congruential generator; the upper 31 bits.
class Lcg {
 public:
  explicit Lcg(std::uint64_t seed) : state_(seed) {}
  std::uint32_t draw() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::uint32_t>(state_ >> 33);
  }
  double uniform() { return (draw() + 0.5) / 2147483648.0; }
  // Nearly normal: the sum of twelve.
  double normal() {
    double sum = 0.0;
    for (int i = 0; i < 12; ++i) {
      sum += uniform();
    }
    return sum - 6.0;
  }
  std::vector<std::byte> bytes(std::size_t count) {
    std::vector<std::byte> result(count);
    for (std::byte& one : result) {
      one = std::byte(draw() & 255U);
    }
    return result;
  }

 private:
  std::uint64_t state_;
};

// Weights as models have them ("normal"), and worse: "heavy" tails, single "outliers", an "offset" from zero.
inline std::vector<float> weights(const std::string& kind, std::size_t count, std::uint64_t seed) {
  Lcg random(seed);
  std::vector<float> result(count);
  for (float& one : result) {
    double x = random.normal();
    if (kind == "heavy") {
      x = x * x * x;
    } else if (kind == "outliers") {
      x = random.uniform() < 1.0 / 64.0 ? x * 20.0 : x;
    } else if (kind == "offset") {
      x = x + 1.5;
    }
    one = static_cast<float>(x * 0.02);
  }
  return result;
}

}  // namespace caravan::test

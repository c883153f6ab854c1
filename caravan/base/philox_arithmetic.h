// The arithmetic of philox.h, for the processor and for GPUs: the same bits on both.
//
// To be compiled without contraction of products and sums (-ffp-contract=off, -fmad=false) and without libm's log and cos:
// glibc picks variants with or without FMA at run time, so their last bits differ between machines.  Sums, products,
// quotients and square roots are exact by IEEE 754.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define CARAVAN_ANYWHERE __host__ __device__ inline
#else
#define CARAVAN_ANYWHERE inline
#endif

namespace caravan::philox {

// The upper 53 of 64 bits.
CARAVAN_ANYWHERE std::uint64_t top53(std::uint32_t low, std::uint32_t high) {
  return ((std::uint64_t{high} << 32) | low) >> 11;
}

// 1/3, 1/5, ... 1/23: the series of atanh(s) / s after its first term, in s^2.
constexpr std::array<double, 11> atanh_terms() {
  std::array<double, 11> terms{};
  for (int i = 0; i < 11; ++i) {
    terms[static_cast<std::size_t>(i)] = 1.0 / (2 * i + 3);
  }
  return terms;
}

// -1/(first+1)!, 1/(first+3)!, ...: the series of cos x (first 1) or sin(x) / x (first 2) after its 1, in x^2.
constexpr std::array<double, 9> alternating_factorials(int first) {
  std::array<double, 9> terms{};
  double factorial = first;
  for (int i = 0; i < 9; ++i) {
    const int n = first + 2 * i;
    factorial *= -static_cast<double>(n + 1) * (i == 0 ? 1 : n);
    terms[static_cast<std::size_t>(i)] = 1.0 / factorial;
  }
  return terms;
}

// z (t0 + z (t1 + ...)), the highest term first.
template <std::size_t kTerms>
CARAVAN_ANYWHERE double series(const std::array<double, kTerms>& terms, double z) {
  double sum = 0.0;
  for (std::size_t i = kTerms; i-- > 0;) {
    sum = (sum + terms[i]) * z;
  }
  return sum;
}

// The bodies below choose values rather than branches: random bits defeat branch prediction, and models have billions
// of initial values.

// log x for normal x in (0, 1].  x = m 2^e with m in [sqrt(1/2), sqrt 2), log m = 2 atanh(s), s = (m - 1) / (m + 1).
// |s| < 0.172, so that the first term left out is below s * 2e-20.
CARAVAN_ANYWHERE double log_positive(double x) {
  constexpr std::array<double, 11> kAtanh = atanh_terms();
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  constexpr std::uint64_t kFraction = 0xfffffffffffffU;
  constexpr std::uint64_t kFractionOfSqrt2 = std::bit_cast<std::uint64_t>(1.4142135623730951) & kFraction;
  const std::uint64_t above = (bits & kFraction) > kFractionOfSqrt2 ? 1 : 0;  // then m is halved
  const int exponent = static_cast<int>(bits >> 52) - 1023 + static_cast<int>(above);
  const double m = std::bit_cast<double>((bits & kFraction) | ((1023 - above) << 52));
  const double s = (m - 1.0) / (m + 1.0);
  // ln 2 in two parts: the first has 21 trailing zero bits, so that its product with the exponent is exact.
  constexpr double kLn2High = 0x1.62e42fee00000p-1;
  constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
  return exponent * kLn2High + (2.0 * (s + s * series(kAtanh, s * s)) + exponent * kLn2Low);
}

// cos(2 pi t) for t in [0, 1), folded into the first eighth of the circle.  Folding is exact, so that zeros and signs
// are where they belong.  Taylor to x^18 (cos) and x^19 (sin), x < 0.79: the next terms are below 4e-21.
CARAVAN_ANYWHERE double cos_turn(double t) {
  constexpr std::array<double, 9> kCos = alternating_factorials(1);
  constexpr std::array<double, 9> kSin = alternating_factorials(2);
  constexpr double kTwoPi = 6.283185307179586;
  const double half = t < 1.0 - t ? t : 1.0 - t;                 // cos(2 pi t) = cos(2 pi (1 - t))
  const double quarter = half < 0.5 - half ? half : 0.5 - half;  // = -cos(2 pi (1/2 - t))
  const bool use_cos = quarter <= 0.125;                         // = sin(2 pi (1/4 - t))
  const double x = kTwoPi * (use_cos ? quarter : 0.25 - quarter);
  const double first = use_cos ? 1.0 : x;
  const double value = first + first * (use_cos ? series(kCos, x * x) : series(kSin, x * x));
  return copysign(value, 0.25 - half);
}

// Salmon et al. 2011, section 4.3: ten rounds, multipliers and Weyl constants of table 2.
CARAVAN_ANYWHERE std::array<std::uint32_t, 4> rounds(std::array<std::uint32_t, 4> counter,
                                                     std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t first = std::uint64_t{0xd2511f53U} * counter[0];
    const std::uint64_t second = std::uint64_t{0xcd9e8d57U} * counter[2];
    counter = {static_cast<std::uint32_t>(second >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(second),
               static_cast<std::uint32_t>(first >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(first)};
    key[0] += 0x9e3779b9U;
    key[1] += 0xbb67ae85U;
  }
  return counter;
}

CARAVAN_ANYWHERE std::array<std::uint32_t, 4> block(std::uint64_t seed, std::uint64_t name_hash, std::uint64_t index) {
  const auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
  const auto high = [](std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); };
  return rounds({low(index), high(index), low(name_hash), high(name_hash)}, {low(seed), high(seed)});
}

// Value `index` of a stream, as RandomStream::normal() tells.
CARAVAN_ANYWHERE double normal(std::uint64_t seed, std::uint64_t name_hash, std::uint64_t index) {
  const std::array<std::uint32_t, 4> words = block(seed, name_hash, index);
  const double radius_uniform = static_cast<double>(top53(words[0], words[1]) + 1) * 0x1p-53;  // (0, 1]: log is finite
  const double angle_uniform = static_cast<double>(top53(words[2], words[3])) * 0x1p-53;
  return sqrt(-2.0 * log_positive(radius_uniform)) * cos_turn(angle_uniform);
}

}  // namespace caravan::philox

// Compiled with -ffp-contract=off and without libm's log and cos: glibc picks variants with or without FMA at run time,
// so their last bits differ between machines.  Sums, products, quotients and square roots are exact by IEEE 754.
#include "caravan/base/philox.h"

#include <bit>
#include <cmath>

namespace caravan {
namespace {

// FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  }
  return hash;
}

// The upper 53 of 64 bits.
std::uint64_t top53(std::uint32_t low, std::uint32_t high) {
  return ((std::uint64_t{high} << 32) | low) >> 11;
}

// 1/3, 1/5, ... 1/23: the series of atanh(s) / s after its first term, in s^2.
constexpr std::array<double, 11> kAtanh = [] {
  std::array<double, 11> terms{};
  for (int i = 0; i < 11; ++i) {
    terms[static_cast<std::size_t>(i)] = 1.0 / (2 * i + 3);
  }
  return terms;
}();

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
constexpr std::array<double, 9> kCos = alternating_factorials(1);
constexpr std::array<double, 9> kSin = alternating_factorials(2);

// z (t0 + z (t1 + ...)), the highest term first.
template <std::size_t kTerms>
double series(const std::array<double, kTerms>& terms, double z) {
  double sum = 0.0;
  for (std::size_t i = kTerms; i-- > 0;) {
    sum = (sum + terms[i]) * z;
  }
  return sum;
}

// log x for normal x in (0, 1].  x = m 2^e with m in [sqrt(1/2), sqrt 2), log m = 2 atanh(s), s = (m - 1) / (m + 1).
// |s| < 0.172, so that the first term left out is below s * 2e-20.
double log_positive(double x) {
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffU) | 0x3ff0000000000000U);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  // ln 2 in two parts: the first has 21 trailing zero bits, so that its product with the exponent is exact.
  constexpr double kLn2High = 0x1.62e42fee00000p-1;
  constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
  return exponent * kLn2High + (2.0 * (s + s * series(kAtanh, s * s)) + exponent * kLn2Low);
}

constexpr double kTwoPi = 6.283185307179586;

// cos and sin of 2 pi t for t in [0, 1/8]: Taylor to x^18 and x^19, the next terms being below 4e-21.
double cos_eighth(double t) {
  const double x = kTwoPi * t;
  return 1.0 + series(kCos, x * x);
}

double sin_eighth(double t) {
  const double x = kTwoPi * t;
  return x + x * series(kSin, x * x);
}

// cos(2 pi t) for t in [0, 1).  Folding t is exact, so that zeros and signs are where they belong.
double cos_turn(double t) {
  if (t > 0.5) {
    t = 1.0 - t;
  }
  const bool negative = t > 0.25;
  if (negative) {
    t = 0.5 - t;
  }
  const double value = t <= 0.125 ? cos_eighth(t) : sin_eighth(0.25 - t);
  return negative ? -value : value;
}

std::array<std::uint32_t, 4> block(std::uint64_t seed, std::uint64_t name_hash, std::uint64_t index) {
  const auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
  const auto high = [](std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); };
  return philox4x32({low(index), high(index), low(name_hash), high(name_hash)}, {low(seed), high(seed)});
}

}  // namespace

// Salmon et al. 2011, section 4.3: ten rounds, multipliers and Weyl constants of table 2.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
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

RandomStream::RandomStream(std::uint64_t seed, std::string_view name) : seed_(seed), name_hash_(fnv1a(name)) {}

double RandomStream::uniform(std::uint64_t index) const {
  const auto words = block(seed_, name_hash_, index);
  return static_cast<double>(top53(words[0], words[1])) * 0x1p-53;
}

double RandomStream::normal(std::uint64_t index) const {
  const auto words = block(seed_, name_hash_, index);
  const double radius_uniform = static_cast<double>(top53(words[0], words[1]) + 1) * 0x1p-53;  // (0, 1]: log is finite
  const double angle_uniform = static_cast<double>(top53(words[2], words[3])) * 0x1p-53;
  return std::sqrt(-2.0 * log_positive(radius_uniform)) * cos_turn(angle_uniform);
}

}  // namespace caravan

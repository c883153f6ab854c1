#include "caravan/base/philox.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <string_view>

namespace caravan {
namespace {

using Counter = std::array<std::uint32_t, 4>;

// kat_vectors of the Random123 library, philox4x32 with 10 rounds.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// The stream's definition, once more: FNV-1a of the name, the index, the seed.
Counter words_of(std::uint64_t seed, std::string_view name, std::uint64_t index) {
  std::uint64_t hash = 14695981039346656037U;
  for (const char c : name) {
    hash ^= static_cast<std::uint8_t>(c);
    hash *= 1099511628211U;
  }
  return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                     static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(hash >> 32)},
                    {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

std::uint64_t fraction53(std::uint32_t low, std::uint32_t high) {
  return ((std::uint64_t{high} << 32) | low) >> 11;
}

TEST(RandomStream, UniformIsTheUpper53BitsOfTheFirstTwoWords) {
  const RandomStream stream(0x123456789abcdefU, "model.norm.weight");
  for (const std::uint64_t index : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32, ~std::uint64_t{0}}) {
    const Counter words = words_of(0x123456789abcdefU, "model.norm.weight", index);
    const double value = stream.uniform(index);
    EXPECT_EQ(value, std::ldexp(static_cast<double>(fraction53(words[0], words[1])), -53));
    EXPECT_GE(value, 0.0);
    EXPECT_LT(value, 1.0);
  }
}

TEST(RandomStream, SeedNameAndIndexEachChangeTheValue) {
  const double value = RandomStream(1, "a").uniform(0);
  EXPECT_EQ(RandomStream(1, "a").uniform(0), value);
  EXPECT_NE(RandomStream(2, "a").uniform(0), value);
  EXPECT_NE(RandomStream(std::uint64_t{1} << 32 | 1, "a").uniform(0), value);
  EXPECT_NE(RandomStream(1, "b").uniform(0), value);
  EXPECT_NE(RandomStream(1, "a").uniform(1), value);
  EXPECT_NE(RandomStream(1, "a").uniform(std::uint64_t{1} << 32), value);
}

// Box-Muller by libm in long double.  The radius is below 8.6 and each of the handful of roundings on the way is 2^-53:
// 1e-14 leaves room for ten of them.
TEST(RandomStream, NormalIsBoxMullerOfItsBlock) {
  const RandomStream stream(7, "accuracy");
  const long double pi = 3.14159265358979323846264338327950288L;
  double worst = 0.0;
  for (std::uint64_t index = 0; index < 200000; ++index) {
    const Counter words = words_of(7, "accuracy", index);
    const long double u = std::ldexp(static_cast<long double>(fraction53(words[0], words[1]) + 1), -53);
    const long double v = std::ldexp(static_cast<long double>(fraction53(words[2], words[3])), -53);
    const long double expected = std::sqrt(-2 * std::log(u)) * std::cos(2 * pi * v);
    worst = std::max(worst, std::fabs(static_cast<double>(expected - stream.normal(index))));
  }
  EXPECT_LT(worst, 1e-14);
}

// Five deviations of each estimator over n samples: the k-th moment's variance is (E x^2k - (E x^k)^2) / n.
TEST(RandomStream, NormalHasTheMomentsOfANormal) {
  constexpr int kSamples = 1000000;
  const RandomStream stream(11, "moments");
  double sums[5] = {};
  int below_minus_one = 0;
  for (int i = 0; i < kSamples; ++i) {
    const double x = stream.normal(static_cast<std::uint64_t>(i));
    ASSERT_TRUE(std::isfinite(x));
    double power = 1.0;
    for (double& sum : sums) {
      sum += power;
      power *= x;
    }
    below_minus_one += x < -1.0 ? 1 : 0;
  }
  const double root = std::sqrt(static_cast<double>(kSamples));
  EXPECT_NEAR(sums[1] / kSamples, 0.0, 5 * 1.0 / root);
  EXPECT_NEAR(sums[2] / kSamples, 1.0, 5 * std::sqrt(2.0) / root);
  EXPECT_NEAR(sums[3] / kSamples, 0.0, 5 * std::sqrt(15.0) / root);
  EXPECT_NEAR(sums[4] / kSamples, 3.0, 5 * std::sqrt(96.0) / root);
  EXPECT_NEAR(static_cast<double>(below_minus_one) / kSamples, 0.5 * std::erfc(std::sqrt(0.5)), 5 * 0.37 / root);
}

// Initial weights may never change between versions, compilers or machines.
TEST(RandomStream, NormalsKeepTheirBits) {
  const RandomStream stream(42, "model.embed_tokens.weight");
  std::uint64_t hash = 14695981039346656037U;
  for (std::uint64_t index = 0; index < 1000; ++index) {
    std::uint64_t bits = std::bit_cast<std::uint64_t>(stream.normal(index));
    for (int byte = 0; byte < 8; ++byte, bits >>= 8) {
      hash = (hash ^ (bits & 0xff)) * 1099511628211U;
    }
  }
  EXPECT_EQ(hash, 11098281247616422963U);
}

}  // namespace
}  // namespace caravan

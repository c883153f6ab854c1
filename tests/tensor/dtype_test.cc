#include "caravan/tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "caravan/base/error.h"
#include "caravan/tensor/device.h"

namespace caravan {
namespace {

constexpr DType kAll[] = {DType::kF64,    DType::kF32,  DType::kBF16, DType::kF16, DType::kF8E4M3,
                          DType::kF8E5M2, DType::kE8M0, DType::kI64,  DType::kI32, DType::kU8};

TEST(DType, NamesRoundTrip) {
  for (const DType dtype : kAll) {
    EXPECT_EQ(parse_dtype(to_string(dtype)), dtype);
  }
  EXPECT_EQ(parse_dtype("bf16"), DType::kBF16);
  EXPECT_EQ(parse_dtype("f8e4m3"), DType::kF8E4M3);
  EXPECT_FALSE(parse_dtype("BF16"));
  EXPECT_FALSE(parse_dtype("float32"));
}

TEST(DType, KnowsItsSizeAndSignificand) {
  EXPECT_EQ(size_of(DType::kF64), 8);
  EXPECT_EQ(size_of(DType::kF32), 4);
  EXPECT_EQ(size_of(DType::kBF16), 2);
  EXPECT_EQ(size_of(DType::kF16), 2);
  EXPECT_EQ(size_of(DType::kE8M0), 1);
  EXPECT_EQ(size_of(DType::kI64), 8);
  EXPECT_EQ(size_of(DType::kI32), 4);
  EXPECT_EQ(size_of(DType::kU8), 1);
  EXPECT_EQ(significand_bits(DType::kF64), 53);
  EXPECT_EQ(significand_bits(DType::kF32), 24);
  EXPECT_EQ(significand_bits(DType::kF16), 11);
  EXPECT_EQ(significand_bits(DType::kBF16), 8);
  EXPECT_THROW(significand_bits(DType::kI32), ShapeError);
  EXPECT_THROW(significand_bits(DType::kF8E4M3), ShapeError);
  EXPECT_TRUE(is_compute_float(DType::kF16));
  EXPECT_FALSE(is_compute_float(DType::kF8E5M2));
  EXPECT_FALSE(is_compute_float(DType::kU8));
}

TEST(Device, IsNamed) {
  EXPECT_EQ(to_string(Device{}), "host");
  EXPECT_EQ(to_string(Device{DeviceKind::kMeta, 0}), "meta");
  EXPECT_EQ(to_string(Device{DeviceKind::kCuda, 3}), "cuda:3");
}

// A 16-bit format by its definition in IEEE 754, slowly and with nothing but scaling by powers of two.
struct Format {
  int fraction_bits;
  int bias;

  int infinity() const { return 0x7fff & ~((1 << fraction_bits) - 1); }

  double value(std::uint16_t bits) const {
    const int field = (bits & 0x7fff) >> fraction_bits;
    const int fraction = bits & ((1 << fraction_bits) - 1);
    const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
    if ((bits & 0x7fff) >= infinity()) {
      return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
    }
    const int implied = field == 0 ? 0 : 1 << fraction_bits;
    return sign * std::ldexp(implied + fraction, (field == 0 ? 1 : field) - bias - fraction_bits);
  }

  // Rounds to a whole number of last places, nearest even being the processor's own rounding.
  double rounded(double x) const {
    int exponent = 0;
    std::frexp(x, &exponent);  // |x| in [2^(exponent - 1), 2^exponent)
    const int last_place = std::max(exponent - 1, 1 - bias) - fraction_bits;
    const double result = std::ldexp(std::nearbyint(std::ldexp(x, -last_place)), last_place);
    const double largest = value(static_cast<std::uint16_t>(infinity() - 1));
    return std::fabs(result) > largest ? std::copysign(std::numeric_limits<double>::infinity(), x) : result;
  }
};

constexpr Format kHalf{10, 15};
constexpr Format kBrain{7, 127};

void expect_same(double actual, double expected, double x) {
  EXPECT_EQ(actual, expected) << std::hexfloat << "rounding " << x;
  EXPECT_EQ(std::signbit(actual), std::signbit(expected)) << std::hexfloat << "rounding " << x;
}

void expect_rounded(double x) {
  expect_same(static_cast<float>(round_to_f16(x)), kHalf.rounded(x), x);
  expect_same(static_cast<float>(round_to_bf16(x)), kBrain.rounded(x), x);
  const float single = static_cast<float>(x);
  if (std::isfinite(single)) {
    expect_same(static_cast<float>(Float16(single)), kHalf.rounded(single), single);
    expect_same(static_cast<float>(BFloat16(single)), kBrain.rounded(single), single);
  }
}

TEST(SmallFloats, EveryPatternWidensToItsValueAndComesBack) {
  for (int pattern = 0; pattern < 0x10000; ++pattern) {
    const auto bits = static_cast<std::uint16_t>(pattern);
    Float16 half;
    half.bits = bits;
    BFloat16 brain;
    brain.bits = bits;
    const double half_value = kHalf.value(bits);
    const double brain_value = kBrain.value(bits);
    if (std::isnan(half_value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(half)));
      EXPECT_EQ(Float16(static_cast<float>(half)).bits, bits | 0x200) << "a NaN keeps sign and payload, and is quiet";
    } else {
      EXPECT_EQ(static_cast<float>(half), half_value);
      EXPECT_EQ(Float16(static_cast<float>(half)).bits, bits);
      EXPECT_EQ(round_to_f16(half_value).bits, bits);
    }
    if (std::isnan(brain_value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(brain)));
      EXPECT_EQ(BFloat16(static_cast<float>(brain)).bits, bits | 0x40);
    } else {
      EXPECT_EQ(static_cast<float>(brain), brain_value);
      EXPECT_EQ(BFloat16(static_cast<float>(brain)).bits, bits);
      EXPECT_EQ(round_to_bf16(brain_value).bits, bits);
    }
  }
}

TEST(SmallFloats, RandomDoublesRoundToNearest) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> significand(1.0, 2.0);
  std::uniform_int_distribution<int> exponent(-160, 140);
  for (int i = 0; i < 300000; ++i) {
    const double magnitude = std::ldexp(significand(random), i % 2 == 0 ? exponent(random) : exponent(random) / 6);
    expect_rounded(i % 3 == 0 ? -magnitude : magnitude);
  }
}

// Half way between two neighbours, and the smallest step to either side of it: by way of f32 that step would be lost
// and the tie decided a second time.
TEST(SmallFloats, TiesGoToEvenAndTheirNeighboursDoNot) {
  for (const Format& format : {kHalf, kBrain}) {
    for (int pattern = 0; pattern + 1 < format.infinity(); ++pattern) {
      const double low = format.value(static_cast<std::uint16_t>(pattern));
      const double high = format.value(static_cast<std::uint16_t>(pattern + 1));
      const double middle = low + (high - low) / 2;
      const double even = pattern % 2 == 0 ? low : high;
      const auto round = [&format](double x) {
        return static_cast<double>(format.bias == 15 ? static_cast<float>(round_to_f16(x))
                                                     : static_cast<float>(round_to_bf16(x)));
      };
      ASSERT_EQ(round(middle), even);
      ASSERT_EQ(round(-middle), -even);
      ASSERT_EQ(round(std::nextafter(middle, 0.0)), low);
      ASSERT_EQ(round(std::nextafter(middle, 1e300)), high);
    }
  }
}

TEST(SmallFloats, OverflowGoesToInfinityAtHalfAStepBeyondTheLargest) {
  EXPECT_EQ(round_to_f16(65504.0).bits, 0x7bff);
  EXPECT_EQ(round_to_f16(std::nextafter(65520.0, 0.0)).bits, 0x7bff);
  EXPECT_EQ(round_to_f16(65520.0).bits, 0x7c00);
  EXPECT_EQ(Float16(-65520.0F).bits, 0xfc00);
  EXPECT_EQ(round_to_f16(1e300).bits, 0x7c00);
  EXPECT_EQ(Float16(std::numeric_limits<float>::infinity()).bits, 0x7c00);
  const double half_step = std::ldexp(511.0, 119);  // (2 - 2^-8) 2^127
  EXPECT_EQ(round_to_bf16(std::nextafter(half_step, 0.0)).bits, 0x7f7f);
  EXPECT_EQ(round_to_bf16(half_step).bits, 0x7f80);
  EXPECT_EQ(BFloat16(std::numeric_limits<float>::max()).bits, 0x7f80);
  EXPECT_EQ(round_to_bf16(-std::numeric_limits<double>::infinity()).bits, 0xff80);
}

TEST(SmallFloats, TheSmallestSubnormalsAndZerosKeepTheirSign) {
  EXPECT_EQ(round_to_f16(0.0).bits, 0);
  EXPECT_EQ(round_to_f16(-0.0).bits, 0x8000);
  EXPECT_EQ(round_to_f16(0x1p-24).bits, 1);
  EXPECT_EQ(round_to_f16(0x1p-25).bits, 0);  // a tie, to even
  EXPECT_EQ(round_to_f16(std::nextafter(-0x1p-25, -1.0)).bits, 0x8001);
  EXPECT_EQ(round_to_f16(0x1.8p-24).bits, 2);
  EXPECT_EQ(round_to_bf16(0x1p-133).bits, 1);
  EXPECT_EQ(round_to_bf16(0x1p-134).bits, 0);
  EXPECT_EQ(round_to_bf16(-std::numeric_limits<double>::denorm_min()).bits, 0x8000);
  EXPECT_EQ(Float16(std::numeric_limits<float>::denorm_min()).bits, 0);
}

TEST(SmallFloats, NanStaysNan) {
  for (const double nan : {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::quiet_NaN(),
                           std::bit_cast<double>(std::uint64_t{0x7ff0000000000001U})}) {
    EXPECT_TRUE(std::isnan(static_cast<float>(round_to_f16(nan))));
    EXPECT_TRUE(std::isnan(static_cast<float>(round_to_bf16(nan))));
    EXPECT_EQ(round_to_f16(nan).bits >> 15, std::signbit(nan) ? 1 : 0);
  }
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::bit_cast<float>(0x7f800001U)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(Float16(std::bit_cast<float>(0x7f800001U)))));
}

}  // namespace
}  // namespace caravan

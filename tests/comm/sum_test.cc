#include "caravan/comm/sum.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace caravan::comm {
namespace {

template <typename T>
T summed(DType dtype, const std::vector<T>& terms) {
  std::vector<const std::byte*> sources;
  for (const T& term : terms) {
    sources.push_back(reinterpret_cast<const std::byte*>(&term));
  }
  T sum{};
  std::byte* const destination = reinterpret_cast<std::byte*>(&sum);
  sum_in_order(dtype, sources, std::span(&destination, 1), 1);
  return sum;
}

TEST(SumInOrder, AddsFromTheLeft) {
  // 2^53 + 1 rounds back to 2^53; the other order keeps both ones.
  const double big = 9007199254740992.0;
  EXPECT_EQ(summed<double>(DType::kF64, {big, 1.0, 1.0}), big);
  EXPECT_EQ(summed<double>(DType::kF64, {1.0, 1.0, big}), big + 2.0);
  const float big_f32 = 16777216.0F;
  EXPECT_EQ(summed<float>(DType::kF32, {big_f32, 1.0F, 1.0F}), big_f32) << "not summed in a wider type";
}

TEST(SumInOrder, RoundsSmallFloatsOnce) {
  // 1 + 2^-8 + 2^-8: rounded after every step bf16 stays at 1, rounded once it is 1 + 2^-7.
  const BFloat16 small(0.00390625F);
  EXPECT_EQ(static_cast<float>(summed<BFloat16>(DType::kBF16, {BFloat16(1.0F), small, small})), 1.0078125F);
  // The same of f16, whose last bit at 1 is 2^-10.
  const Float16 half(0.00048828125F);
  EXPECT_EQ(static_cast<float>(summed<Float16>(DType::kF16, {Float16(1.0F), half, half})), 1.0009765625F);
}

TEST(SumInOrder, WrapsIntegersAround) {
  const std::int64_t most = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(summed<std::int64_t>(DType::kI64, {most, 1}), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(summed<std::int64_t>(DType::kI64, {most, 1, -2}), most - 1);
}

TEST(SumInOrder, KeepsTheZerosSign) {
  EXPECT_TRUE(std::signbit(summed<double>(DType::kF64, {-0.0, -0.0})));
}

TEST(SumInOrder, TakesEveryLengthAndAlignment) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const std::size_t count : {0, 1, 2, 511, 512, 513, 1024, 1500}) {
    for (const std::size_t shift : {0, 1, 3}) {
      std::vector<std::vector<std::byte>> rows(3, std::vector<std::byte>(count * 4 + 4));
      std::vector<float> expected(count + 1);  // never empty: memcmp wants addresses
      std::vector<const std::byte*> sources;
      for (std::vector<std::byte>& row : rows) {
        for (std::size_t i = 0; i < count; ++i) {
          const float value = normal(random);
          std::memcpy(row.data() + shift + i * 4, &value, 4);
          expected[i] = sources.empty() ? value : expected[i] + value;
        }
        sources.push_back(row.data() + shift);
      }
      std::vector<std::byte> other(count * 4 + 8, std::byte{9});
      const std::vector<std::byte*> destinations = {rows[1].data() + shift, other.data() + shift};
      sum_in_order(DType::kF32, sources, destinations, static_cast<std::int64_t>(count));
      EXPECT_EQ(std::memcmp(rows[1].data() + shift, expected.data(), count * 4), 0) << count << " " << shift;
      EXPECT_EQ(std::memcmp(other.data() + shift, expected.data(), count * 4), 0) << count << " " << shift;
      EXPECT_EQ(other[shift + count * 4], std::byte{9}) << "wrote past the end";
    }
  }
}

}  // namespace
}  // namespace caravan::comm

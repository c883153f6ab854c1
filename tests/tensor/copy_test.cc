#include "caravan/tensor/copy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "caravan/base/error.h"
#include "caravan/tensor/allocator.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan {
namespace {

constexpr DType kFloats[] = {DType::kF64, DType::kF32, DType::kBF16, DType::kF16};

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

class CopyTest : public testing::Test {
 protected:
  std::shared_ptr<Allocator> allocator_ = Allocator::host(1 << 20);
  std::shared_ptr<Allocator> meta_ = Allocator::meta();

  Tensor host(DType dtype, const Shape& shape) { return allocator_->allocate(dtype, shape, Segment::kWorkspace); }
};

TEST_F(CopyTest, GoesToTheTensorAndBack) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const Tensor tensor = host(DType::kF32, {2, 3});
  copy_from_host(tensor, bytes_of(values));
  EXPECT_EQ(to_floats(tensor), values);
  std::vector<float> back(6);
  copy_to_host(std::as_writable_bytes(std::span(back)), tensor);
  EXPECT_EQ(back, values);
}

TEST_F(CopyTest, FollowsRowStrides) {
  const Tensor whole = host(DType::kI32, {3, 5});
  copy_from_host(whole, bytes_of(std::vector<std::int32_t>(15, -1)));
  const Tensor middle = whole.column_range(1, 3).row_range(1, 3);
  copy_from_host(middle, bytes_of(std::vector<std::int32_t>{10, 11, 20, 21}));
  EXPECT_EQ(to_doubles(whole), (std::vector<double>{-1, -1, -1, -1, -1, -1, 10, 11, -1, -1, -1, 20, 21, -1, -1}));
  EXPECT_EQ(to_doubles(middle), (std::vector<double>{10, 11, 20, 21}));
  std::vector<std::int32_t> back(4);
  copy_to_host(std::as_writable_bytes(std::span(back)), middle);
  EXPECT_EQ(back, (std::vector<std::int32_t>{10, 11, 20, 21}));
  const Tensor three = whole.column_range(0, 4).reshape({3, 2, 2});
  EXPECT_EQ(to_doubles(three).size(), 12U);
  EXPECT_EQ(to_doubles(three)[5], 10);
}

TEST_F(CopyTest, RefusesOtherSizes) {
  const Tensor tensor = host(DType::kF32, {2, 3});
  std::vector<std::byte> bytes(23);
  EXPECT_THROW(copy_from_host(tensor, bytes), ShapeError);
  EXPECT_THROW(copy_to_host(bytes, tensor), ShapeError);
  EXPECT_THROW(copy_from_host(meta_->allocate(DType::kF32, {2}, Segment::kWorkspace), bytes), ShapeError);
}

TEST_F(CopyTest, EmptyTensorsAreFine) {
  const Tensor tensor = host(DType::kF32, {0, 3});
  copy_from_host(tensor, {});
  copy_to_host({}, tensor);
  EXPECT_TRUE(to_floats(tensor).empty());
}

TEST_F(CopyTest, MetaTakesBytesAndGivesNone) {
  const Tensor tensor = meta_->allocate(DType::kF32, {2}, Segment::kWorkspace);
  copy_from_host(tensor, bytes_of(std::vector<float>{1, 2}));
  std::vector<std::byte> bytes(8);
  EXPECT_THROW(copy_to_host(bytes, tensor), ShapeError);
  EXPECT_THROW(to_doubles(tensor), ShapeError);
  EXPECT_THROW(to_floats(tensor), ShapeError);
  EXPECT_THROW(to_floats(Tensor()), ShapeError);
}

TEST_F(CopyTest, CudaIsRefusedInWords) {
  if (cuda_memory::refusal(0).empty()) {
    GTEST_SKIP() << "there is a device, which would follow the address";
  }
  std::byte byte{};
  const Tensor tensor(DType::kU8, {1}, Device{DeviceKind::kCuda, 0}, &byte, nullptr);
  EXPECT_THROW(copy_from_host(tensor, std::span(&byte, 1)), UnsupportedError);
  EXPECT_THROW(copy_to_host(std::span(&byte, 1), tensor), UnsupportedError);
}

TEST_F(CopyTest, ReadsEveryIntegerType) {
  const Tensor wide = host(DType::kI64, {2});
  copy_from_host(wide, bytes_of(std::vector<std::int64_t>{-(std::int64_t{1} << 40), 7}));
  EXPECT_EQ(to_doubles(wide), (std::vector<double>{-1099511627776.0, 7}));
  const Tensor small = host(DType::kU8, {2});
  copy_from_host(small, bytes_of(std::vector<std::uint8_t>{0, 255}));
  EXPECT_EQ(to_doubles(small), (std::vector<double>{0, 255}));
  EXPECT_THROW(to_floats(small), ShapeError);
  EXPECT_THROW(to_doubles(host(DType::kF8E4M3, {2})), ShapeError);
}

// One element's conversion by the scalar types of dtype.h, which have tests of their own.
double read(DType dtype, const std::byte* at) {
  double wide = 0.0;
  float single = 0.0F;
  BFloat16 brain;
  Float16 half;
  switch (dtype) {
    case DType::kF64:
      std::memcpy(&wide, at, 8);
      return wide;
    case DType::kF32:
      std::memcpy(&single, at, 4);
      return single;
    case DType::kBF16:
      std::memcpy(&brain, at, 2);
      return static_cast<float>(brain);
    default:
      std::memcpy(&half, at, 2);
      return static_cast<float>(half);
  }
}

double rounded(DType dtype, double value) {
  switch (dtype) {
    case DType::kF64:
      return value;
    case DType::kF32:
      return static_cast<float>(value);
    case DType::kBF16:
      return static_cast<float>(round_to_bf16(value));
    default:
      return static_cast<float>(round_to_f16(value));
  }
}

TEST(ConvertElements, RoundsOnceBetweenAnyTwoFloats) {
  constexpr std::int64_t kCount = 20001;
  std::mt19937_64 random(3);
  for (const DType from : kFloats) {
    for (const DType to : kFloats) {
      // One byte off: files promise no alignment.
      std::vector<std::byte> source(static_cast<std::size_t>(kCount * size_of(from) + 1));
      std::vector<std::byte> target(static_cast<std::size_t>(kCount * size_of(to) + 2));
      for (std::byte& byte : source) {
        byte = static_cast<std::byte>(random());
      }
      if (from == DType::kF64) {  // random exponents would nearly all overflow
        for (std::int64_t i = 0; i < kCount; ++i) {
          const double value = std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 200) - 164);
          std::memcpy(source.data() + 1 + i * 8, &value, 8);
        }
      }
      target.back() = std::byte{0x77};
      convert_elements(to, target.data() + 1, from, source.data() + 1, kCount);
      EXPECT_EQ(target.back(), std::byte{0x77});
      for (std::int64_t i = 0; i < kCount; ++i) {
        const double value = read(from, source.data() + 1 + i * size_of(from));
        const double actual = read(to, target.data() + 1 + i * size_of(to));
        const double expected = rounded(to, value);
        if (std::isnan(expected)) {
          ASSERT_TRUE(std::isnan(actual));
        } else {
          ASSERT_EQ(actual, expected) << to_string(from) << " to " << to_string(to) << " of " << value;
          ASSERT_EQ(std::signbit(actual), std::signbit(expected));
        }
      }
    }
  }
}

TEST(ConvertElements, DoublesDoNotPassThroughFloat) {
  // Just above half way between 1 and the next bf16 and f16: f32 would round it to the tie, and the tie to 1.
  const std::vector<double> values = {std::nextafter(1.0 + 0x1p-8, 2.0), std::nextafter(1.0 + 0x1p-11, 2.0)};
  std::vector<std::uint16_t> bits(2);
  const auto* source = reinterpret_cast<const std::byte*>(values.data());
  convert_elements(DType::kBF16, reinterpret_cast<std::byte*>(bits.data()), DType::kF64, source, 1);
  EXPECT_EQ(bits[0], 0x3f81);
  convert_elements(DType::kF16, reinterpret_cast<std::byte*>(bits.data()), DType::kF64, source + 8, 1);
  EXPECT_EQ(bits[0], 0x3c01);
}

TEST(ConvertElements, EqualTypesKeepEveryBit) {
  const std::vector<std::uint16_t> signalling = {0x7c01, 0xfdff, 0x0001};
  std::vector<std::uint16_t> copy(3);
  convert_elements(DType::kF16, reinterpret_cast<std::byte*>(copy.data()), DType::kF16,
                   reinterpret_cast<const std::byte*>(signalling.data()), 3);
  EXPECT_EQ(copy, signalling);
}

TEST(ConvertElements, RefusesOtherTypes) {
  std::byte bytes[8] = {};
  EXPECT_THROW(convert_elements(DType::kI32, bytes, DType::kF32, bytes, 0), ShapeError);
  EXPECT_THROW(convert_elements(DType::kF32, bytes, DType::kF8E5M2, bytes, 0), ShapeError);
  EXPECT_NO_THROW(convert_elements(DType::kF32, nullptr, DType::kF32, nullptr, 0));
}

TEST(FirstNonFinite, FindsTheFirstInEveryFloatType) {
  for (const DType dtype : kFloats) {
    for (const std::int64_t count : {0, 1, 1023, 1024, 1025, 5000}) {
      std::vector<double> values(static_cast<std::size_t>(count), 1.5);
      std::vector<std::byte> data(static_cast<std::size_t>(count * size_of(dtype)));
      const auto convert = [&] {
        convert_elements(dtype, data.data(), DType::kF64, reinterpret_cast<const std::byte*>(values.data()), count);
      };
      convert();
      EXPECT_EQ(first_non_finite(dtype, data.data(), count), -1);
      for (const std::int64_t at : {std::int64_t{0}, count / 2, count - 1}) {
        if (at < 0 || at >= count) {
          continue;
        }
        for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                                 -std::numeric_limits<double>::infinity()}) {
          values.assign(static_cast<std::size_t>(count), -1.5);
          values[static_cast<std::size_t>(at)] = bad;
          values.back() = bad;  // a later one does not matter
          convert();
          EXPECT_EQ(first_non_finite(dtype, data.data(), count), at);
        }
      }
    }
  }
}

TEST(FirstNonFinite, TheLargestNumbersAreFinite) {
  const float largest = std::numeric_limits<float>::max();
  EXPECT_EQ(first_non_finite(DType::kF32, reinterpret_cast<const std::byte*>(&largest), 1), -1);
  const std::uint16_t half = 0x7bff;
  EXPECT_EQ(first_non_finite(DType::kF16, reinterpret_cast<const std::byte*>(&half), 1), -1);
  EXPECT_EQ(first_non_finite(DType::kBF16, reinterpret_cast<const std::byte*>(&half), 1), -1);
  EXPECT_THROW(first_non_finite(DType::kI32, nullptr, 0), ShapeError);
}

}  // namespace
}  // namespace caravan

#include "caravan/quant/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/quant/dequantize.h"
#include "tests/support/lcg.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::quant {
namespace {

const std::vector<BlockType> kWritable = {BlockType::kQ80, BlockType::kQ40, BlockType::kQ41, BlockType::kQ50,
                                          BlockType::kQ51, BlockType::kQ4K, BlockType::kQ6K};
const std::vector<std::string> kKinds = {"normal", "heavy", "outliers", "offset"};

std::vector<float> there_and_back(BlockType type, const std::vector<float>& values) {
  const auto count = static_cast<std::int64_t>(values.size());
  std::vector<std::byte> blocks(static_cast<std::size_t>(count / facts(type).elements * facts(type).bytes));
  quantize(type, values.data(), blocks.data(), count);
  std::vector<float> back(values.size());
  dequantize(type, blocks.data(), back.data(), count);
  return back;
}

double distance(const float* a, const float* b, std::size_t count) {
  double squares = 0.0;
  for (std::size_t i = 0; i < count; ++i) {
    squares += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  }
  return std::sqrt(squares);
}

// The figures beside it are llama.cpp's own quantisers' on the same numbers (tests/golden/gguf_goldens.py --ggml).
TEST(Quantize, ErrsNoMoreThanLlamaCppOnAnyTypeAndData) {
  const auto golden = nlohmann::json::parse(test::read_file(test::source_folder() / "tests/golden/gguf/quantize.json"));
  const auto count = golden.at("rows").get<std::size_t>() * golden.at("columns").get<std::size_t>();
  for (std::size_t kind = 0; kind < kKinds.size(); ++kind) {
    const std::vector<float> values = test::weights(kKinds[kind], count, 1 + kind);
    for (const BlockType type : kWritable) {
      const std::vector<float> back = there_and_back(type, values);
      const double rmse = distance(values.data(), back.data(), count) / std::sqrt(static_cast<double>(count));
      const double theirs = golden.at("rmse").at(facts(type).name).at(kKinds[kind]).get<double>();
      EXPECT_LE(rmse, theirs) << facts(type).name << " of " << kKinds[kind];
      RecordProperty(std::string(facts(type).name) + "_" + kKinds[kind], std::to_string(rmse / theirs));
    }
  }
}

TEST(Quantize, NoBlockIsFurtherAwayThanItsBound) {
  for (const BlockType type : kWritable) {
    const auto block = static_cast<std::size_t>(facts(type).elements);
    for (const double scale : {1e-9, 1e-6, 1e-3, 1.0, 1e3}) {
      for (const std::string& kind : kKinds) {
        std::vector<float> values = test::weights(kind, 32 * 256, 77);
        for (float& one : values) {
          one = static_cast<float>(one * scale);
        }
        const std::vector<float> back = there_and_back(type, values);
        for (std::size_t i = 0; i < values.size(); i += block) {
          ASSERT_LE(distance(values.data() + i, back.data() + i, block), worst_distance(type, values.data() + i))
              << facts(type).name << " of " << kind << " times " << scale << " at " << i;
        }
      }
    }
  }
}

// What a check by that bound is for.
TEST(Quantize, BlocksInAWrongOrderAreBeyondTheBound) {
  for (const BlockType type : kWritable) {
    const auto block = static_cast<std::size_t>(facts(type).elements);
    const std::vector<float> values = test::weights("normal", 64 * 256, 5);
    const std::vector<float> back = there_and_back(type, values);
    std::size_t caught = 0;
    std::size_t tried = 0;
    for (std::size_t i = 0; i + 2 * block <= values.size(); i += block, ++tried) {
      caught += distance(values.data() + i, back.data() + i + block, block) > worst_distance(type, values.data() + i);
    }
    EXPECT_EQ(caught, tried) << facts(type).name;
  }
}

TEST(Quantize, ZerosStayZerosAndOneValueStaysItself) {
  for (const BlockType type : kWritable) {
    const std::vector<float> zeros(256, 0.0F);
    EXPECT_EQ(there_and_back(type, zeros), zeros) << facts(type).name;
    // A power of two, so that no rounding of the scale is in the way.
    for (const float value : {0.25F, -0.25F}) {
      const std::vector<float> back = there_and_back(type, std::vector<float>(256, value));
      for (const float one : back) {
        EXPECT_NEAR(one, value, 0.25 * 0x1p-6) << facts(type).name;
      }
    }
  }
}

TEST(Quantize, NumbersOfAnySizeGiveFiniteBlocks) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const BlockType type : kWritable) {
    for (const float odd : {1e-45F, 1e-38F, 1e30F, -3e38F, nan, infinity, -infinity}) {
      std::vector<float> values = test::weights("normal", 256, 9);
      values[17] = odd;
      for (const float one : there_and_back(type, values)) {
        EXPECT_TRUE(std::isfinite(one)) << facts(type).name << " with " << odd;
      }
    }
  }
}

TEST(Quantize, RowsAreTheSameBytesOnAnyNumberOfThreads) {
  constexpr std::int64_t kRows = 33;
  constexpr std::int64_t kColumns = 256;
  const std::vector<float> values = test::weights("heavy", kRows * kColumns, 4);
  for (const BlockType type : kWritable) {
    const auto bytes = static_cast<std::size_t>(kRows * *row_bytes(facts(type), kColumns));
    std::vector<std::byte> one(bytes);
    std::vector<std::byte> two(bytes);
    quantize_rows(type, values.data(), kRows, kColumns, one.data(), 1);
    quantize_rows(type, values.data(), kRows, kColumns, two.data(), 2);
    EXPECT_EQ(one, two) << facts(type).name;
  }
}

TEST(Quantize, PlainTypesRoundOnceToNearest) {
  const std::vector<float> values = {1.0F, 1.0F + 0x1p-9F, -65504.0F, 0x1p-25F};
  EXPECT_EQ(there_and_back(BlockType::kF32, values), values);
  EXPECT_EQ(there_and_back(BlockType::kBF16, {1.0F + 0x1p-8F, 1.0F + 0x1.8p-7F})[0], 1.0F);  // a tie, to even
  const std::vector<float> half = there_and_back(BlockType::kF16, values);
  EXPECT_EQ(half[1], 1.0F + 0x1p-9F);
  EXPECT_EQ(half[3], 0.0F);
}

TEST(Quantize, RefusesTypesThatItDoesNotWriteAndPartsOfBlocks) {
  std::vector<float> values(256);
  std::vector<std::byte> blocks(1024);
  EXPECT_THROW(quantize(BlockType::kQ2K, values.data(), blocks.data(), 256), UnsupportedError);
  EXPECT_THROW(quantize(BlockType::kQ4K, values.data(), blocks.data(), 32), ShapeError);
  EXPECT_THROW(quantize_rows(BlockType::kQ40, values.data(), 4, 20, blocks.data(), 1), ShapeError);
}

}  // namespace
}  // namespace caravan::quant

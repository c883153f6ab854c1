#include "caravan/quant/dequantize.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/checkpoint/gguf.h"
#include "tests/support/lcg.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::quant {
namespace {

const std::filesystem::path kGolden = test::source_folder() / "tests/golden/gguf";

const std::vector<BlockType> kReadable = {BlockType::kF32, BlockType::kF16, BlockType::kBF16, BlockType::kQ80,
                                          BlockType::kQ40, BlockType::kQ41, BlockType::kQ50,  BlockType::kQ51,
                                          BlockType::kQ2K, BlockType::kQ3K, BlockType::kQ4K,  BlockType::kQ5K,
                                          BlockType::kQ6K};

// The bits, one pattern for every NaN: which one comes out of an addition is the processor's own affair.
std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (const float one : values) {
    bits.push_back(std::isnan(one) ? 0x7fc00000U : std::bit_cast<std::uint32_t>(one));
  }
  return bits;
}

std::vector<float> all_of(const checkpoint::GgufFile& file, const std::string& name) {
  const BlockMatrix blocks = file.blocks(*file.find(name));
  std::vector<float> values(static_cast<std::size_t>(blocks.rows * blocks.columns));
  dequantize_rows(blocks, 0, blocks.rows, values.data(), 2);
  return values;
}

TEST(Dequantize, GivesTheBitsOfTheGgufPackageForZerosOnesAndRandomBlocks) {
  const auto file = checkpoint::GgufFile::open(kGolden / "types.gguf");
  for (const BlockType type : kReadable) {
    const std::string name = facts(type).name;
    const auto blocks = bits_of(all_of(file, "blocks." + name));
    const auto expected = bits_of(all_of(file, "expected." + name));
    ASSERT_EQ(blocks.size(), expected.size()) << name;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      ASSERT_EQ(blocks[i], expected[i]) << name << " at " << i;
    }
  }
}

TEST(Dequantize, GivesTheBitsOfTheGgufPackageFor65536RandomElements) {
  const auto sums = nlohmann::json::parse(test::read_file(kGolden / "types.json"));
  constexpr std::int64_t kElements = 65536;
  for (const BlockType type : kReadable) {
    const TypeFacts& shape = facts(type);
    const auto blocks =
        test::Lcg(shape.number).bytes(static_cast<std::size_t>(kElements / shape.elements * shape.bytes));
    std::vector<float> values(kElements);
    dequantize(type, blocks.data(), values.data(), kElements);
    const std::vector<std::uint32_t> bits = bits_of(values);
    const auto sum = crc32(0, reinterpret_cast<const Bytef*>(bits.data()), static_cast<uInt>(4 * bits.size()));
    EXPECT_EQ(sum, sums.at(shape.name).get<std::uint32_t>()) << shape.name;
  }
}

TEST(Dequantize, RowsAreTheSameOnAnyNumberOfThreads) {
  constexpr std::int64_t kRows = 70;
  constexpr std::int64_t kColumns = 512;
  const std::int64_t bytes = *row_bytes(facts(BlockType::kQ4K), kColumns);
  const auto blocks = test::Lcg(3).bytes(static_cast<std::size_t>(kRows * bytes));
  const BlockMatrix matrix{BlockType::kQ4K, kRows, kColumns, bytes, blocks, nullptr};
  std::vector<float> one(kRows * kColumns);
  std::vector<float> three(kRows * kColumns);
  dequantize_rows(matrix, 0, kRows, one.data(), 1);
  dequantize_rows(matrix, 0, kRows, three.data(), 3);
  EXPECT_EQ(bits_of(one), bits_of(three));
  std::vector<float> some(2 * kColumns);
  dequantize_rows(matrix, 41, 43, some.data(), 1);
  EXPECT_EQ(bits_of(some), bits_of({one.begin() + 41 * kColumns, one.begin() + 43 * kColumns}));
}

TEST(Dequantize, RefusesPartsOfBlocksTypesItLacksAndRowsOutside) {
  float value = 0.0F;
  std::vector<std::byte> bytes(1024);
  EXPECT_THROW(dequantize(BlockType::kQ40, bytes.data(), &value, 31), ShapeError);
  EXPECT_THROW(dequantize(static_cast<BlockType>(20), bytes.data(), &value, 0), UnsupportedError);
  const BlockMatrix matrix{BlockType::kF32, 2, 4, 16, bytes, nullptr};
  EXPECT_THROW(dequantize_rows(matrix, 1, 3, &value, 1), ShapeError);
  EXPECT_THROW(dequantize_rows(matrix, -1, 0, &value, 1), ShapeError);
}

}  // namespace
}  // namespace caravan::quant

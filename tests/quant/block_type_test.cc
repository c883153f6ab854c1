#include "caravan/quant/block_type.h"

#include <gtest/gtest.h>

#include <limits>

namespace caravan::quant {
namespace {

TEST(BlockType, NamesWordsAndNumbersLeadToEachOther) {
  for (const char* word :
       {"f32", "f16", "bf16", "f64", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"}) {
    const auto type = parse_block_type(word);
    ASSERT_TRUE(type) << word;
    EXPECT_EQ(to_string(*type), word);
    EXPECT_EQ(find_type(facts(*type).number), &facts(*type));
    EXPECT_TRUE(facts(*type).readable) << word;
  }
  EXPECT_FALSE(parse_block_type("q9_k"));
}

TEST(BlockType, KnowsTheSizeOfTypesThatItCannotRead) {
  ASSERT_NE(find_type(20), nullptr);
  EXPECT_STREQ(find_type(20)->name, "IQ4_NL");
  EXPECT_FALSE(find_type(20)->readable);
  // Never given out, withdrawn, and not yet there.
  for (const std::uint32_t number : {4U, 5U, 31U, 36U, 1000U, 0xffffffffU}) {
    EXPECT_EQ(find_type(number), nullptr) << number;
  }
}

TEST(BlockType, PlainTypesAreDtypes) {
  EXPECT_EQ(plain_dtype(BlockType::kBF16), DType::kBF16);
  EXPECT_EQ(plain_type(DType::kF16), BlockType::kF16);
  EXPECT_FALSE(plain_dtype(BlockType::kQ40));
  EXPECT_FALSE(plain_type(DType::kI32));
  EXPECT_EQ(bits_per_element(BlockType::kQ40), 4.5);
  EXPECT_EQ(bits_per_element(BlockType::kQ6K), 6.5625);
}

TEST(BlockType, ARowIsAWholeNumberOfBlocksAndNeverWraps) {
  EXPECT_EQ(row_bytes(facts(BlockType::kQ4K), 512), 288);
  EXPECT_EQ(row_bytes(facts(BlockType::kQ4K), 0), 0);
  EXPECT_FALSE(row_bytes(facts(BlockType::kQ4K), 32));
  EXPECT_FALSE(row_bytes(facts(BlockType::kF32), -4));
  EXPECT_FALSE(row_bytes(facts(BlockType::kF32), std::numeric_limits<std::int64_t>::max()));
}

}  // namespace
}  // namespace caravan::quant

#include "caravan/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan::tokenizer {
namespace {

TEST(Utf8, EveryScalarValueGoesThereAndBack) {
  for (char32_t value = 0; value < 0x110000; value += value < 0x3000 ? 1 : 37) {
    if (value >= 0xD800 && value < 0xE000) {
      continue;
    }
    std::string text = "a";
    append_utf8(text, value);
    EXPECT_EQ(first_invalid_byte(text), std::nullopt) << static_cast<unsigned>(value);
    EXPECT_EQ(code_point_at(text, 1).value, value);
    EXPECT_EQ(code_point_at(text, 1).length, text.size() - 1);
    EXPECT_EQ(code_point_before(text, text.size()).value, value);
  }
}

TEST(Utf8, TheFirstWrongByteIsNamed) {
  EXPECT_EQ(first_invalid_byte(""), std::nullopt);
  EXPECT_EQ(first_invalid_byte("0123456789abcdef\xC3"), 16U);
  EXPECT_EQ(first_invalid_byte("\xC0\x80"), 0U) << "overlong";
  EXPECT_EQ(first_invalid_byte("ab\xED\xA0\x80"), 2U) << "a surrogate";
  EXPECT_EQ(first_invalid_byte("\xF4\x90\x80\x80"), 0U) << "beyond U+10FFFF";
  EXPECT_EQ(first_invalid_byte("\xE2\x82\xAC\x80"), 3U);
  EXPECT_NE(test::message_of<InputError>([] { require_utf8("abc\xFF"); }).find("byte 3 (0xFF)"), std::string::npos);
}

// The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
TEST(Utf8, EveryMaximalSubpartBecomesOneReplacement) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(lossy_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(lossy_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(lossy_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(lossy_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

TEST(Utf8, OnlyTheBeginningOfACharacterIsHeldBack) {
  EXPECT_EQ(certain_prefix(""), 0U);
  EXPECT_EQ(certain_prefix("ab"), 2U);
  EXPECT_EQ(certain_prefix("a\xF0\x9F\x98"), 1U);
  EXPECT_EQ(certain_prefix("a\xF0\x9F\x98\x80"), 5U);
  EXPECT_EQ(certain_prefix("a\xE2\x82"), 1U);
  EXPECT_EQ(certain_prefix("a\xC3"), 1U);
  EXPECT_EQ(certain_prefix("a\x80"), 2U) << "no later byte makes it a character";
  EXPECT_EQ(certain_prefix("a\xE0\x80"), 3U);
}

}  // namespace
}  // namespace caravan::tokenizer

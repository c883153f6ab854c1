#include "caravan/tokenizer/split.h"

#include <gtest/gtest.h>

#include <random>

#include "caravan/base/error.h"
#include "caravan/tokenizer/pattern.h"
#include "caravan/tokenizer/utf8.h"
#include "tests/support/scratch.h"

namespace caravan::tokenizer {
namespace {

using Pieces = std::vector<std::string>;

template <typename PieceEnd>
Pieces scan(const std::string& text, PieceEnd piece_end) {
  Pieces pieces;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = piece_end(text, at);
    pieces.push_back(text.substr(at, end - at));
    at = end;
  }
  return pieces;
}

Pieces gpt2(const std::string& text) {
  return scan(text, gpt2_piece_end);
}

Pieces llama3(const std::string& text, int digits = 3) {
  return scan(text, [digits](std::string_view all, std::size_t at) { return llama3_piece_end(all, at, digits); });
}

Pieces by_pattern(std::string_view pattern, const std::string& text,
                  SplitBehavior behavior = SplitBehavior::kIsolated) {
  Pieces pieces;
  for (const Stretch& one : split_pieces(Pattern::compile(pattern, "x").find(text), behavior)) {
    pieces.push_back(text.substr(one.begin, one.end - one.begin));
  }
  return pieces;
}

TEST(Split, Gpt2CutsAsItsPattern) {
  EXPECT_EQ(gpt2("I'll go,  now 123\n\n x"), (Pieces{"I", "'ll", " go", ",", " ", " now", " 123", "\n\n", " x"}));
  EXPECT_EQ(gpt2("I'LL "), (Pieces{"I", "'", "LL", " "}));
}

TEST(Split, Llama3CutsAsItsPattern) {
  EXPECT_EQ(llama3("I'LL go,  now 1234\r\n\r\n x!\n\n"),
            (Pieces{"I", "'LL", " go", ",", " ", " now", " ", "123", "4", "\r\n\r\n", " x", "!\n\n"}));
  EXPECT_EQ(llama3("12345", 1), (Pieces{"1", "2", "3", "4", "5"}));
}

// The patterns themselves, run by PCRE2, say where the hand scanners have to cut.
TEST(Split, TheScannersEqualTheirPatternsOnRandomText) {
  std::mt19937 dice(1);
  const char32_t common[] = {' ',    ' ',    '\n',  '\r', '\t',   '\'',    's',    'S',  't',   'l',
                             'L',    'r',    'e',   'v',  '.',    '!',     '1',    '2',  0x17F, 0xA0,
                             0x2028, 0x3000, 0x301, 0xE9, 0x4E2D, 0x1F600, 0x2160, 0x85, 0x200D};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (unsigned i = dice() % 30; i > 0; --i) {
      // Below U+1C80 the libraries' Unicode versions agree about letters and numbers.
      append_utf8(text, dice() % 4 == 0 ? static_cast<char32_t>(dice() % 0x1C80) : common[dice() % std::size(common)]);
    }
    ASSERT_EQ(gpt2(text), by_pattern(kGpt2Pattern, text)) << text;
    ASSERT_EQ(llama3(text), by_pattern(kLlama3Pattern, text)) << text;
    ASSERT_EQ(llama3(text, 1), by_pattern(kQwen2Pattern, text)) << text;
  }
}

TEST(Split, MatchesGoWhereTheBehaviorSays) {
  const std::string text = "the-final--countdown";
  EXPECT_EQ(by_pattern("-", text, SplitBehavior::kRemoved), (Pieces{"the", "final", "countdown"}));
  EXPECT_EQ(by_pattern("-", text), (Pieces{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(by_pattern("-", text, SplitBehavior::kMergedWithPrevious), (Pieces{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(by_pattern("-", text, SplitBehavior::kMergedWithNext), (Pieces{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(by_pattern("-", text, SplitBehavior::kContiguous), (Pieces{"the", "-", "final", "--", "countdown"}));
}

TEST(Pattern, WhatTheLibrariesReadDifferentlyIsRefused) {
  for (const char* pattern :
       {R"(\p{N}{1,3}+)", R"(\h)", R"([a[bc]])", R"([a&&b])", R"(^a)", R"(a$)", R"((?m:.))", R"((?<name>a))", R"(\R)",
        R"(\bx)", R"(\xff)", R"([\W])", R"(\1)", R"((*UTF))", R"([]a])"}) {
    EXPECT_THROW(Pattern::compile(pattern, "x"), UnsupportedError) << pattern;
  }
  for (const char* pattern : {"(", "[a", R"(\p{Nonsense})", "a{2,1}"}) {
    EXPECT_THROW(Pattern::compile(pattern, "x"), FormatError) << pattern;
  }
}

TEST(Pattern, APatternThatRunsAwayIsStopped) {
  const Pattern pattern = Pattern::compile("(?:a+)+(?:a+)+(?:a+)+c", "x");
  EXPECT_NE(test::message_of<InputError>([&] { pattern.find(std::string(5000, 'a') + "bc"); }).find("too many steps"),
            std::string::npos);
}

}  // namespace
}  // namespace caravan::tokenizer

#include "caravan/tokenizer/piece_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "caravan/tokenizer/piece_encoder.h"
#include "caravan/tokenizer/unicode.h"
#include "caravan/tokenizer/utf8.h"

namespace caravan::tokenizer {
namespace {

using Ends = std::vector<std::uint32_t>;

constexpr ScanKind kKinds[] = {ScanKind::kGpt2, ScanKind::kDigitsGpt2, ScanKind::kLlama3, ScanKind::kQwen2,
                               ScanKind::kO200k};

Ends all_ends(ScanKind kind, std::string_view text, std::size_t room, bool plain) {
  Ends ends;
  std::vector<std::uint32_t> some(room);
  for (std::size_t at = 0; at < text.size(); at = ends.back()) {
    const std::size_t count = find_piece_ends(kind, text, at, some.data(), room, plain);
    EXPECT_GT(count, 0U);
    EXPECT_LE(count, room);
    if (count == 0) {
      break;
    }
    ends.insert(ends.end(), some.begin(), some.begin() + static_cast<std::ptrdiff_t>(count));
  }
  return ends;
}

// The text in memory of exactly its size, at a distance of `shift` from a border of 64 bytes: a sanitizer sees each byte
// that is read in vain.
void expect_same(std::string_view text, std::size_t shift, std::size_t room) {
  const auto memory = std::make_unique<char[]>(shift + text.size());
  std::copy(text.begin(), text.end(), memory.get() + shift);
  const std::string_view placed(memory.get() + shift, text.size());
  for (const ScanKind kind : kKinds) {
    const Ends expected = all_ends(kind, placed, room, /*plain=*/true);
    const Ends found = all_ends(kind, placed, room, /*plain=*/false);
    ASSERT_EQ(found, expected) << "kind " << static_cast<int>(kind) << ": " << text;
  }
}

// Runs of what the patterns tell apart, so that borders of each sort lie at every place of a window.
std::string random_text(std::mt19937& dice, std::size_t pieces) {
  static const std::vector<std::string> kParts = {" ",
                                                  "  ",
                                                  "\n",
                                                  "\r\n",
                                                  "\t",
                                                  "\v",
                                                  "'",
                                                  "''",
                                                  "'s",
                                                  "'S",
                                                  "'ll",
                                                  "'LL",
                                                  "'lL",
                                                  "'re",
                                                  "'vE",
                                                  "'m",
                                                  "'d",
                                                  "'t",
                                                  "'l",
                                                  "'r",
                                                  "'\u017F",
                                                  "a",
                                                  "be",
                                                  "The",
                                                  "ABC",
                                                  "aB",
                                                  "word",
                                                  "1",
                                                  "12",
                                                  "3456",
                                                  ".",
                                                  "!?",
                                                  "(",
                                                  "/",
                                                  "//",
                                                  "\n/",
                                                  "_",
                                                  "\u00E9",
                                                  "\u00C9",
                                                  "\u0434\u043B",
                                                  "\u0416",
                                                  "\u4E2D\u6587",
                                                  "\u2019",
                                                  "\u2019s",
                                                  "\u201C",
                                                  "\u2014",
                                                  "\u00A0",
                                                  "\u3000",
                                                  "\u2028",
                                                  "\u0085",
                                                  "\u00B2",
                                                  "\u0665",
                                                  "\u0301",
                                                  "\U0001F600",
                                                  "\u02B0",
                                                  "\u01C5",
                                                  "\U00016FF4",
                                                  "\U00011DE0",
                                                  "\x7F",
                                                  "\x01",
                                                  std::string(1, '\0'),
                                                  "\u2581"};
  std::string text;
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::string& part = kParts[dice() % (dice() % 3 == 0 ? kParts.size() : 38)];
    const unsigned times = dice() % 16 == 0 ? dice() % 90 : 1;
    for (unsigned one = 0; one < times; ++one) {
      text += part;
    }
    if (dice() % 64 == 0) {
      const char32_t any = dice() % 0x110000;
      append_utf8(text, any >= 0xD800 && any < 0xE000 ? U'?' : any);
    }
  }
  return text;
}

TEST(PieceScan, WindowsFindWhatTheScannersFind) {
  std::mt19937 dice(7);
  for (int round = 0; round < 1500; ++round) {
    const std::string text = random_text(dice, 1 + dice() % 120);
    ASSERT_NO_FATAL_FAILURE(expect_same(text, dice() % 64, kLeastRoom + dice() % 200));
  }
}

// Every pair of parts, and each text of three, at every place of a window and at the end of the text.
TEST(PieceScan, BordersLieAnywhereInAWindow) {
  const std::vector<std::string> parts = {" ", "  ", "\n",   " \n", "\n ", "'s",     "'",      "x",
                                          "X", "7",  "1234", ".",   "..",  "\u00E9", "\u2019", "\u3000"};
  for (const std::string& first : parts) {
    for (const std::string& second : parts) {
      for (const std::string& third : parts) {
        const std::string core = first + second + third;
        for (const std::size_t before : {std::size_t{56}, 59 + (core.size() + first[0]) % 5, std::size_t{64}}) {
          ASSERT_NO_FATAL_FAILURE(expect_same(std::string(before, 'y') + core, before % 3, kLeastRoom));
          ASSERT_NO_FATAL_FAILURE(expect_same("y, " + core + std::string(70, 'z'), before % 5, kLeastRoom));
        }
      }
    }
  }
}

TEST(PieceScan, EveryCharacterIsSeenAsThePlainScannerSeesIt) {
  // Beyond the first blocks characters of a kind stand in long rows.
  for (char32_t character = 1; character < 0x110000; character += character < 0x3400 ? 1 : 17) {
    if (character >= 0xD800 && character < 0xE000) {
      continue;
    }
    std::string text = "a";
    for (const char* around : {"", " ", "'", "B", "1", "\n"}) {
      append_utf8(text += around, character);
      text += "s ";
    }
    text += std::string(70, 'z');
    for (const ScanKind kind : kKinds) {
      ASSERT_EQ(all_ends(kind, text, kLeastRoom, false), all_ends(kind, text, kLeastRoom, true))
          << std::hex << static_cast<std::uint32_t>(character);
    }
  }
}

// Numbers apart, then GPT-2's pattern on each stretch: what the two steps do one after the other.
TEST(PieceScan, NumbersAloneAndGpt2AreTheTwoSteps) {
  std::mt19937 dice(3);
  for (int round = 0; round < 2000; ++round) {
    const std::string text = random_text(dice, dice() % 40);
    Ends expected;
    std::size_t stretch = 0;
    const auto cut = [&](std::size_t end) {
      const std::string_view part(text.data() + stretch, end - stretch);
      for (std::size_t at = 0; at < part.size();) {
        at = gpt2_piece_end(part, at);
        expected.push_back(static_cast<std::uint32_t>(stretch + at));
      }
      stretch = end;
    };
    for (std::size_t at = 0; at < text.size();) {
      const CodePoint character = code_point_at(text, at);
      if (is_numeric(character.value)) {
        cut(at);
        cut(at + character.length);
      }
      at += character.length;
    }
    cut(text.size());
    ASSERT_EQ(all_ends(ScanKind::kDigitsGpt2, text, kLeastRoom, true), expected) << text;
  }
}

TEST(PieceScan, ALongPieceTakesNoLongerThanItsLength) {
  // Each once over: the sum of what is looked at would be 10^12 otherwise.
  for (const char* part : {"a", " ", "\n", ".", "1", "\u00E9", "\u3000", " \n", "'", "\u2019", "A", "aB"}) {
    std::string text;
    while (text.size() < 1'000'000) {
      text += part;
    }
    for (const ScanKind kind : kKinds) {
      EXPECT_EQ(all_ends(kind, text, 1024, false).back(), text.size());
    }
  }
}

TEST(PairCuts, CutsWhereNoTokenStands) {
  PairCuts cuts;
  cuts.keep_together("ab");
  cuts.keep_together(" a");
  cuts.keep_together("\u00E9");
  cuts.keep_together("c\u00E9");
  cuts.finish();
  const std::string text = "ab ba  cc\u00E9c";
  std::vector<std::uint32_t> ends(text.size());
  const std::size_t count = cuts.find_ends(text, 0, ends.data(), ends.size());
  ends.resize(count);
  EXPECT_EQ(ends, (Ends{2, 3, 4, 5, 6, 7, 8, 11, 12}));
  EXPECT_EQ(cuts.find_ends(text, 0, ends.data(), 2), 2U);  // no more than there is room for
  // U+2581 might begin a word where a space does.
  EXPECT_FALSE(cuts.cuts(0x80, 'a'));
  EXPECT_TRUE(cuts.cuts(0x80, 'b'));
}

}  // namespace
}  // namespace caravan::tokenizer

#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/tokenizer/golden_files.h"

namespace caravan::tokenizer {
namespace {

Tokenizer load(const std::string& name) {
  return Tokenizer::parse(golden_text(name), name);
}

// Ranges follow each other from the first byte to the last, and ids are encode()'s.
void expect_cover(const Tokenizer& tokenizer, const std::string& text, const EncodeOptions& how) {
  const Encoding found = tokenizer.encode_with_ranges(text, how);
  ASSERT_EQ(found.ids, tokenizer.encode(text, how)) << text;
  ASSERT_EQ(found.ranges.size(), found.ids.size()) << text;
  std::size_t at = 0;
  for (const TextRange& range : found.ranges) {
    ASSERT_EQ(range.begin, at) << text;
    ASSERT_LE(range.begin, range.end) << text;
    at = range.end;
  }
  ASSERT_EQ(found.ids.empty() ? text.size() : at, text.size()) << text;
}

TEST(Offsets, OfBytesAreWhatTheIdsSpell) {
  for (const char* name : {"gpt2.json", "llama3.json", "tiktoken.model"}) {
    const Tokenizer tokenizer = load(name);
    for (const Json& one : golden("texts.json")) {
      const std::string text = one.get<std::string>();
      expect_cover(tokenizer, text, {});
      expect_cover(tokenizer, text, {.add_special = false, .plain = true});
      const Encoding found = tokenizer.encode_with_ranges(text, {.add_special = false, .plain = true});
      for (std::size_t i = 0; i < found.ids.size(); ++i) {
        EXPECT_EQ(text.substr(found.ranges[i].begin, found.ranges[i].end - found.ranges[i].begin),
                  tokenizer.bytes(found.ids[i]))
            << name << ": " << text;
      }
    }
  }
}

TEST(Offsets, OfPiecesTakeSpacesForTheirMark) {
  for (const char* name : {"llama2.json", "bpe.model"}) {
    const Tokenizer tokenizer = load(name);
    for (const Json& one : golden("texts.json")) {
      expect_cover(tokenizer, one.get<std::string>(), {});
      expect_cover(tokenizer, one.get<std::string>(), {.add_special = false, .plain = true});
    }
    const std::string text = "the  \xF0\x9F\xA6\x99 end</s> the";
    const Encoding found = tokenizer.encode_with_ranges(text);
    EXPECT_EQ(found.ids.front(), 1) << name;
    EXPECT_EQ(found.ranges.front(), (TextRange{0, 0})) << "BOS stands nowhere";
    EXPECT_EQ(text.substr(found.ranges[1].begin, found.ranges[1].end), text.substr(0, found.ranges[1].end));
    int single = 0;  // the four bytes of the llama
    for (const TextRange& range : found.ranges) {
      single += static_cast<int>(range.begin >= 5 && range.end <= 9 && range.end == range.begin + 1);
    }
    EXPECT_EQ(single, 4) << name;
  }
}

TEST(Offsets, SpecialTokensHaveTheRangeThatWasCutOut) {
  const Tokenizer tokenizer = load("llama3.json");
  const std::int32_t id = golden("llama3.json").at("added_tokens").at(0).at("id").get<std::int32_t>();
  const std::string special(tokenizer.bytes(id));
  const std::string text = "ab" + special + "cd";
  const Encoding found = tokenizer.encode_with_ranges(text, {.add_special = false});
  const auto place = std::find(found.ids.begin(), found.ids.end(), id) - found.ids.begin();
  EXPECT_EQ(found.ranges.at(static_cast<std::size_t>(place)), (TextRange{2, 2 + special.size()}));
}

TEST(Offsets, AreRefusedWhereTheTextIsRewritten) {
  Json json = golden("llama3.json");
  json["normalizer"] = {{"type", "NFKC"}};
  const Tokenizer tokenizer = Tokenizer::parse(json.dump(), "x");
  expect_cover(tokenizer, "plain", {});
  const std::string sentence = test::message_of<UnsupportedError>([&] { tokenizer.encode_with_ranges("ab\uFB01"); });
  EXPECT_NE(sentence.find("rewrites text"), std::string::npos) << sentence;
  EXPECT_THROW(tokenizer.encode_with_ranges("\xFF"), InputError);
}

}  // namespace
}  // namespace caravan::tokenizer

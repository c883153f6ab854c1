#include "caravan/tokenizer/bpe_trainer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/support/scratch.h"

namespace caravan::tokenizer {
namespace {

TrainOptions options(std::int64_t vocab_size, int threads = 1) {
  TrainOptions result;
  result.vocab_size = vocab_size;
  result.threads = threads;
  return result;
}

Json merges_of(const TrainOptions& how, const std::vector<std::string>& texts) {
  BpeTrainer trainer(how);
  for (const std::string& text : texts) {
    trainer.add(text);
  }
  return parse_json(trainer.train().tokenizer_json, "ours").at("model").at("merges");
}

TEST(BpeTrainer, MergesTheMostFrequentPairAndOfEqualOnesTheSmallestIds) {
  // ab 5 times, bc 2, cd 2; then (ab c) and (c d) twice each.
  EXPECT_EQ(merges_of(options(262), {"ab ab ab abcd abcd"}).dump(), R"([["a","b"],["Ġ","ab"],["c","d"],["Ġab","cd"]])");
}

TEST(BpeTrainer, StopsWhenPairsAreTooRare) {
  BpeTrainer trainer(options(1000));
  trainer.add("ab ab xyz");
  const TrainedTokenizer trained = trainer.train();
  EXPECT_EQ(trained.vocab_size, 259) << "only ab occurs twice";
  EXPECT_EQ(Tokenizer::parse(trained.tokenizer_json, "ours").vocab_size(), 259);
}

TEST(BpeTrainer, OrderAndThreadsChangeNothing) {
  std::string text;
  for (int i = 0; text.size() < (5U << 20); ++i) {
    text += "Line " + std::to_string(i * 7919 % 1000) + " of words, wordless\n" + (i % 3 == 0 ? "\n  indented\n" : "");
  }
  const std::string other = "quite another text, quite another\n";
  const Json one = merges_of(options(400), {text, other});
  EXPECT_EQ(merges_of(options(400, 4), {text, other}), one);
  EXPECT_EQ(merges_of(options(400, 3), {other, text}), one);
}

TEST(BpeTrainer, WhatItLearnedEncodesAnyTextAndComesBack) {
  for (const SplitPattern pattern : {SplitPattern::kGpt2, SplitPattern::kLlama3}) {
    TrainOptions how = options(300);
    how.pattern = pattern;
    BpeTrainer trainer(how);
    trainer.add("the cat and the hat and the bat");
    const TrainedTokenizer trained = trainer.train();
    const Tokenizer tokenizer = Tokenizer::parse(trained.tokenizer_json, "ours", trained.tokenizer_config_json);
    const std::string text = "the d\u00e9j\u00e0 vu \U0001F600\r\n <|end_of_text|> the";
    const auto ids = tokenizer.encode_document(text);
    EXPECT_EQ(ids.front(), 0);
    EXPECT_EQ(ids.back(), 1);
    EXPECT_EQ(tokenizer.decode(ids), "<|begin_of_text|>" + text + "<|end_of_text|>");
    EXPECT_EQ(tokenizer.bos(), 0);
    EXPECT_EQ(tokenizer.eos(), 1);
  }
}

TEST(BpeTrainer, ReportsItsProgress) {
  TrainOptions how = options(270);
  std::vector<std::int64_t> seen;
  how.progress = [&](std::int64_t done, std::int64_t total) {
    EXPECT_EQ(total, 270);
    seen.push_back(done);
  };
  merges_of(how, {"the cat and the hat and the bat and the mat"});
  ASSERT_FALSE(seen.empty());
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST(BpeTrainer, MistakesAreNamed) {
  EXPECT_NE(test::message_of<InputError>([] { BpeTrainer(options(257)); }).find("need 258"), std::string::npos);
  EXPECT_NE(test::message_of<InputError>([] { BpeTrainer(options(300)).train(); }).find("no text"), std::string::npos);
  EXPECT_NE(test::message_of<InputError>([] { BpeTrainer(options(300)).add("ab\xC3("); }).find("byte 2"),
            std::string::npos);
  TrainOptions twice = options(300);
  twice.special_tokens = {"<s>", "<s>"};
  EXPECT_THROW(BpeTrainer{twice}, InputError);
  TrainOptions missing = options(300);
  missing.bos = "<s>";
  EXPECT_THROW(BpeTrainer{missing}, InputError);
}

}  // namespace
}  // namespace caravan::tokenizer

// Every text of the corpus under every tokenizer of tests/golden/tokenizers: the ids and texts of `tokenizers`.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "caravan/base/json.h"
#include "caravan/tokenizer/bpe_trainer.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/support/scratch.h"

namespace caravan::tokenizer {
namespace {

using Ids = std::vector<std::int32_t>;

const std::string kFolder = std::string(CARAVAN_SOURCE_DIR) + "/tests/golden/tokenizers/";

Json golden(const std::string& name) {
  return parse_json(test::read_file(kFolder + name), name);
}

Tokenizer tokenizer_of(const Json& variant) {
  Json json = golden(variant.at("base").get<std::string>() + ".json");
  json.merge_patch(variant.at("patch"));
  return Tokenizer::parse(json.dump(), variant.at("name").get<std::string>());
}

class GoldenTokenizer : public ::testing::TestWithParam<Json> {};

TEST_P(GoldenTokenizer, EncodesAndDecodesAsTheReference) {
  const Json texts = golden("texts.json");
  const Tokenizer tokenizer = tokenizer_of(GetParam());
  for (const Json& one : GetParam().at("cases")) {
    const std::string text = texts.at(one.at("text").get<std::size_t>()).get<std::string>();
    const auto list = [&](const char* name, const Ids& otherwise) {
      return one.contains(name) ? one.at(name).get<Ids>() : otherwise;
    };
    const Ids ids = one.at("ids").get<Ids>();
    const Ids bare = list("bare", ids);
    EXPECT_EQ(tokenizer.encode(text), ids) << text;
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false}), bare) << text;
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false, .plain = true}), list("plain", bare)) << text;
    const std::string decoded = one.value("decoded", text);
    EXPECT_EQ(tokenizer.decode(ids), decoded);
    EXPECT_EQ(tokenizer.decode(ids, /*skip_special=*/true), one.value("skipped", decoded));
  }
  for (const Json& one : GetParam().at("decodes")) {
    const Ids ids = one.at("ids").get<Ids>();
    EXPECT_EQ(tokenizer.decode(ids), one.at("decoded").get<std::string>()) << one.dump();
    // The same id by id, and never half a character.
    StreamDecoder stream(tokenizer, /*skip_special=*/false);
    std::string streamed;
    for (const std::int32_t id : ids) {
      streamed += stream.push(id);
    }
    EXPECT_EQ(streamed + stream.finish(), one.at("decoded").get<std::string>()) << one.dump();
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizer, ::testing::ValuesIn(golden("expected.json").get<std::vector<Json>>()),
                         [](const auto& info) { return info.param.at("name").template get<std::string>(); });

TEST(GoldenTrainer, LearnsTheReferencesVocabularyAndMerges) {
  for (const auto& [name, pattern] :
       {std::pair<const char*, SplitPattern>{"gpt2.json", SplitPattern::kGpt2}, {"llama3.json", SplitPattern::kLlama3}}) {
    for (const int threads : {1, 3}) {
      BpeTrainer trainer({.vocab_size = 640, .min_frequency = 2, .pattern = pattern, .threads = threads});
      trainer.add(test::read_file(kFolder + "training.txt"));
      trainer.add(test::read_file(kFolder + "training.txt"));
      const TrainedTokenizer trained = trainer.train();
      const Json ours = parse_json(trained.tokenizer_json, "ours");
      const Json theirs = golden(name);
      EXPECT_EQ(ours.at("model").at("merges"), theirs.at("model").at("merges")) << name;
      EXPECT_TRUE(nlohmann::json(ours.at("model").at("vocab")) == nlohmann::json(theirs.at("model").at("vocab")))
          << name;
      EXPECT_EQ(trained.vocab_size, 640);
    }
  }
}

}  // namespace
}  // namespace caravan::tokenizer

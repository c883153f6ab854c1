// Every text of the corpus under every tokenizer.json of tests/golden/tokenizers: the ids and texts of `tokenizers`.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "caravan/base/json.h"
#include "caravan/tokenizer/bpe_trainer.h"
#include "caravan/tokenizer/tokenizer.h"
#include "caravan/tokenizer/utf8.h"
#include "tests/support/scratch.h"
#include "tests/tokenizer/golden_files.h"

namespace caravan::tokenizer {
namespace {

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
    const std::string decoded = one.at("decoded").get<std::string>();
    EXPECT_EQ(tokenizer.decode(ids), decoded) << one.dump();
    // The same id by id, and never half a character.
    StreamDecoder stream(tokenizer, /*skip_special=*/false);
    std::string text;
    for (const std::int32_t id : ids) {
      const std::string more = stream.push(id);
      EXPECT_FALSE(first_invalid_byte(more)) << one.dump();
      text += more;
    }
    text += stream.finish();
    // A run of byte tokens that spells no text as a whole is the one case in which the two differ.
    const bool damaged_run = GetParam().at("base") == "llama2" && decoded.find("\uFFFD") != std::string::npos;
    if (!damaged_run) {
      EXPECT_EQ(text, decoded) << one.dump();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizer, ::testing::ValuesIn(golden_list("expected.json")),
                         [](const auto& info) { return info.param.at("name").template get<std::string>(); });

TEST(GoldenTrainer, LearnsTheReferencesVocabularyAndMerges) {
  for (const auto& [name, pattern] : {std::pair<const char*, SplitPattern>{"gpt2.json", SplitPattern::kGpt2},
                                      {"llama3.json", SplitPattern::kLlama3}}) {
    for (const int threads : {1, 3}) {
      TrainOptions options;
      options.vocab_size = 640;
      options.pattern = pattern;
      options.threads = threads;
      BpeTrainer trainer(options);
      trainer.add(golden_text("training.txt"));
      trainer.add(golden_text("training.txt"));
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

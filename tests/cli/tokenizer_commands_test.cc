// `caravan tokenize` and `caravan tokenizer train` as a user types them.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/cli/commands.h"
#include "tests/support/scratch.h"

namespace caravan::cli {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

class TokenizerCommands : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(scratch_.path() / "texts" / "deeper");
    test::write_file(scratch_.path() / "texts" / "b.txt", "the cat and the hat\n");
    test::write_file(scratch_.path() / "texts" / "deeper" / "a.txt", "the bat and the mat\n");
    test::write_file(scratch_.path() / "one.txt", "and the rest\n");
  }

  std::string path(const std::string& name) const { return (scratch_.path() / name).string(); }

  std::string output(Words words, const std::string& input = "") {
    std::istringstream in(input);
    std::ostringstream out;
    std::ostringstream err;
    EXPECT_EQ(run(words, {out, err, in}), 0);
    err_ = err.str();
    return out.str();
  }

  std::string tokenize(const std::string& input, Words flags = {}) {
    flags.insert(flags.begin(), {"tokenize", "--tokenizer", path("made")});
    return output(flags, input);
  }

  std::string refusal(const Words& words, const std::string& input = "") {
    return test::message_of<Error>([&] { output(words, input); });
  }

  void train() {
    output({"tokenizer", "train", path("texts"), path("one.txt"), "--vocab-size", "270", "--output", path("made")});
  }

  test::ScratchDirectory scratch_;
  std::string err_;
};

TEST_F(TokenizerCommands, TrainReadsDirectoriesAndSaysWhatComesNext) {
  const std::string said =
      output({"tokenizer", "train", path("texts"), path("one.txt"), "--vocab-size", "264", "--output", path("made")});
  EXPECT_NE(said.find("264 entries learned from 53 B of text"), std::string::npos) << said;
  EXPECT_NE(said.find("next: caravan tokenize --tokenizer " + path("made")), std::string::npos) << said;
  EXPECT_NE(err_.find("3 files"), std::string::npos) << err_;
  EXPECT_TRUE(fs::exists(path("made") + "/tokenizer_config.json"));
  EXPECT_NE(
      refusal({"tokenizer", "train", path("one.txt"), "--vocab-size", "270", "--output", path("made")}).find("made"),
      std::string::npos)
      << "the target exists";
  output({"tokenizer", "train", path("one.txt"), "--vocab-size", "259", "--min-frequency", "1", "--pattern", "gpt2",
          "--output", path("made"), "--replace"});
  EXPECT_EQ(test::read_file(path("made") + "/tokenizer.json").find("Split"), std::string::npos);
}

TEST_F(TokenizerCommands, TextGoesToIdsAndBack) {
  train();
  const std::string text = "the <|end_of_text|> \u00e9t\u00e9\r\n\n";
  const std::string ids = tokenize(text);
  EXPECT_EQ(Json::parse(ids).front(), 0);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), '\n'), 1);
  EXPECT_EQ(tokenize(ids, {"--decode"}), "<|begin_of_text|>" + text);
  const Json bare = Json::parse(tokenize(text, {"--no-add-special"}));
  EXPECT_EQ(bare.size() + 1, Json::parse(ids).size());
  EXPECT_EQ(std::count(bare.begin(), bare.end(), 1), 1);
  const Json plain = Json::parse(tokenize(text, {"--no-add-special", "--plain"}));
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 1), 0);
  EXPECT_EQ(tokenize(plain.dump(), {"--decode"}), text);
  EXPECT_EQ(tokenize(""), "[0]\n");
  EXPECT_EQ(tokenize("", {"--no-add-special"}), "[]\n");
}

TEST_F(TokenizerCommands, LinesOfJsonGoThereAndBack) {
  train();
  const std::string lines = "\"the\\n cat\"\n\"\"\n\"\\u2028\"\n";
  const std::string ids = tokenize(lines, {"--jsonl", "--no-add-special"});
  EXPECT_EQ(std::count(ids.begin(), ids.end(), '\n'), 3);
  EXPECT_EQ(tokenize(ids, {"--jsonl", "--decode"}), lines);
}

TEST_F(TokenizerCommands, ADataSetBecomesShards) {
  train();
  test::write_file(path("lines.jsonl"), "{\"text\": \"the cat\"}\n{\"text\": \"the mat\"}\n");
  const std::string told =
      output({"tokenize", "--tokenizer", path("made"), "--data", path("lines.jsonl"), "--to-shards", path("shards")});
  EXPECT_NE(told.find("2 documents in 1 shard"), std::string::npos) << told;
  EXPECT_TRUE(fs::exists(path("shards")));
  EXPECT_NE(
      refusal({"tokenize", "--tokenizer", path("made"), "--data", path("lines.jsonl"), "--to-shards", path("shards")})
          .find("shards"),
      std::string::npos);
  EXPECT_NE(refusal({"tokenize", "--tokenizer", path("made"), "--to-shards", path("more")}).find("--data"),
            std::string::npos);
  EXPECT_NE(refusal({"tokenize", "--data", path("lines.jsonl"), "--to-shards", path("more")}).find("tokenizer"),
            std::string::npos);
  EXPECT_NE(refusal({"tokenize"}).find("--tokenizer"), std::string::npos);
}

TEST_F(TokenizerCommands, MistakesAreOneSentence) {
  train();
  const Words tokenize = {"tokenize", "--tokenizer", path("made")};
  const Words lines = {"tokenize", "--tokenizer", path("made"), "--jsonl"};
  const Words decode = {"tokenize", "--tokenizer", path("made"), "--decode"};
  const auto named = [&](const Words& words, const std::string& input, const std::string& expected) {
    const std::string message = refusal(words, input);
    EXPECT_NE(message.find(expected), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  };
  named(tokenize, "abc\xFF", "byte 3 (0xFF)");
  named(lines, "\"a\"\nb\n", "line 2");
  named(lines, "\"a\"\n[1]\n", "line 2: expected a JSON string");
  named(decode, "[1, 100000]", "100,000 is outside");
  named(decode, "[1.5]", "expected a JSON list of ids");
  named(decode, "{}", "expected a JSON list of ids");
  named({"tokenize", "--tokenizer", path("nothing")}, "", "nothing");
  const auto train_on = [&](const std::string& file, const std::string& size) {
    return Words{"tokenizer", "train", path(file), "--vocab-size", size, "--output", path("other")};
  };
  named(train_on("one.txt", "200"), "", "need 258");
  named(train_on("missing.txt", "300"), "", "missing.txt");
  test::write_file(path("empty.txt"), "");
  named(train_on("empty.txt", "300"), "", "no text");
  test::write_file(path("latin1.txt"), "caf\xE9!");
  named(train_on("latin1.txt", "300"), "", "latin1.txt: the text is not UTF-8: byte 3");
  EXPECT_FALSE(fs::exists(path("other")));
}

}  // namespace
}  // namespace caravan::cli

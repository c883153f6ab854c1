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
  EXPECT_EQ(tokenize("the cat", {"--ranges", "--no-add-special"}).find("[["), 0U);
  EXPECT_NE(tokenize("the cat", {"--ranges", "--no-add-special"}).find(",7]]"), std::string::npos);
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

TEST_F(TokenizerCommands, MessagesGoThroughTheChatTemplate) {
  train();
  test::write_file(path("made") + "/chat_template.jinja",
                   "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"
                   "{{ tools|length if tools }}{{ extra }}{% if add_generation_prompt %}[assistant]{% endif %}"
                   "{{ strftime_now('%d %b %Y') }}");
  test::write_file(path("list.json"), R"([{"role": "user", "content": "the cat"}])");
  test::write_file(path("object.json"), R"({"messages": [{"role": "user", "content": "the cat"}], "tools": [{}, {}],
                   "add_generation_prompt": true, "chat_template_kwargs": {"extra": "!"}})");
  const auto chat = [&](const std::string& file, Words more = {}, const std::string& input = "") {
    more.insert(more.begin(), {"tokenize", "--tokenizer", path("made"), "--date", "2024-07-26", "--chat",
                               file == "-" ? "-" : path(file)});
    return output(more, input);
  };
  const std::string text = "<|begin_of_text|>[user] the cat<|end_of_text|>26 Jul 2024";
  EXPECT_EQ(chat("list.json", {"--text"}), text);
  EXPECT_EQ(chat("-", {"--text"}, test::read_file(path("list.json"))), text);
  EXPECT_EQ(chat("object.json", {"--text"}), "<|begin_of_text|>[user] the cat<|end_of_text|>2![assistant]26 Jul 2024");
  // Special tokens are read, and none is added: one BOS, which the template writes.
  const Json ids = Json::parse(chat("list.json"));
  EXPECT_EQ(ids, Json::parse(tokenize(text, {"--no-add-special"})));
  EXPECT_EQ(ids.front(), 0);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 0), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 1), 1);
  // The file of the tokenizer names its folder.
  EXPECT_EQ(output({"tokenize", "--tokenizer", path("made") + "/tokenizer.json", "--date", "2024-07-26", "--chat",
                    path("list.json"), "--text"}),
            text);
  const auto named = [&](const Words& words, const std::string& expected) {
    const std::string message = refusal(words);
    EXPECT_NE(message.find(expected), std::string::npos) << expected << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  };
  const Words good = {"tokenize", "--tokenizer", path("made"), "--chat", path("list.json")};
  const auto with = [&](const Words& more) {
    Words words = good;
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  named(with({"--decode"}), "--decode does not go with --chat");
  named(with({"--plain"}), "--plain does not go with --chat");
  named({"tokenize", "--tokenizer", path("made"), "--text"}, "give both");
  named({"tokenize", "--chat", path("list.json")}, "--tokenizer");
  named(with({"--date", "July"}), "--date");
  test::write_file(path("bad.json"), "[1]");
  named({"tokenize", "--tokenizer", path("made"), "--chat", path("bad.json")}, "bad.json: messages must be a list");
  test::write_file(path("bad.json"), "[]");
  named({"tokenize", "--tokenizer", path("made"), "--chat", path("bad.json")}, "there are no messages");
  test::write_file(path("bad.json"), "{");
  named({"tokenize", "--tokenizer", path("made"), "--chat", path("bad.json")}, "bad.json: not valid JSON");
  test::write_file(path("made") + "/chat_template.jinja", "{{ raise_exception('roles must alternate') }}");
  named(good, "the template says: roles must alternate");
  fs::remove(path("made") + "/chat_template.jinja");
  named(good, "there is no chat template beside the tokenizer");
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

// Which file of a directory is read, and what its content makes of it.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "tests/tokenizer/golden_files.h"
#include "tests/tokenizer/piece_model.h"

namespace caravan::tokenizer {
namespace {

namespace fs = std::filesystem;

TEST(Load, TheContentTellsTheKindWhateverTheName) {
  const test::ScratchDirectory scratch;
  const fs::path file = scratch.path() / "tokenizer.model";
  for (const char* name : {"llama3.json", "llama2.json", "bpe.model", "unigram.model", "tiktoken.model"}) {
    const std::string content = golden_text(name);
    test::write_file(file, content);
    const Tokenizer tokenizer = Tokenizer::load(file);
    EXPECT_EQ(tokenizer.encode("the fair sun"), Tokenizer::parse(content, name).encode("the fair sun")) << name;
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("the fair sun"), /*skip_special=*/true), "the fair sun") << name;
    EXPECT_EQ(Tokenizer::load(scratch.path()).fingerprint(), tokenizer.fingerprint()) << name;
  }
}

TEST(Load, ADirectorysTokenizerJsonGoesFirst) {
  const test::ScratchDirectory scratch;
  EXPECT_EQ(tokenizer_file(scratch.path()), std::nullopt);
  EXPECT_EQ(tokenizer_file(scratch.path() / "nothing"), std::nullopt);
  const std::string message = test::message_of<FileError>([&] { Tokenizer::load(scratch.path()); });
  EXPECT_NE(message.find("no tokenizer.json and no tokenizer.model"), std::string::npos) << message;
  test::write_file(scratch.path() / "tokenizer.model", golden_text("bpe.model"));
  EXPECT_EQ(tokenizer_file(scratch.path()), scratch.path() / "tokenizer.model");
  EXPECT_EQ(Tokenizer::load(scratch.path()).vocab_size(), 620);
  test::write_file(scratch.path() / "tokenizer.json", golden_text("llama3.json"));
  EXPECT_EQ(tokenizer_file(scratch.path()), scratch.path() / "tokenizer.json");
  EXPECT_EQ(Tokenizer::load(scratch.path()).vocab_size(), 640);
}

TEST(Load, TheFilesBesideAreRead) {
  const test::ScratchDirectory scratch;
  test::write_file(scratch.path() / "tokenizer.model", golden_text("bpe.model"));
  const std::string alone = Tokenizer::load(scratch.path()).fingerprint();
  test::write_file(scratch.path() / "special_tokens_map.json", R"({"pad_token": "<pad>", "bos_token": "<s>"})");
  EXPECT_EQ(Tokenizer::load(scratch.path()).pad(), 620);
  test::write_file(scratch.path() / "added_tokens.json", R"({"<pad>": 620, "<more>": 621})");
  const Tokenizer tokenizer = Tokenizer::load(scratch.path());
  EXPECT_EQ(tokenizer.id_of("<more>"), 621);
  EXPECT_FALSE(tokenizer.is_special(621));
  EXPECT_NE(tokenizer.fingerprint(), alone);
  const auto refused = [&](const char* name, const char* content, const char* expected) {
    test::write_file(scratch.path() / name, content);
    const std::string message = test::message_of<FormatError>([&] { Tokenizer::load(scratch.path()); });
    EXPECT_NE(message.find(expected), std::string::npos) << message;
    EXPECT_NE(message.find(name), std::string::npos) << message;
    fs::remove(scratch.path() / name);
  };
  refused("added_tokens.json", R"({"<more>": 900})", "transformers would give \"<more>\" the id 620");
  refused("added_tokens.json", R"({"<more>": -1})", "the id of the added token");
  refused("added_tokens.json", "[]", "not a JSON object");
  refused("added_tokens.json", "{", "added_tokens.json");
  refused("tokenizer_config.json", R"({"legacy": 3})", "\"legacy\" is not true or false");
  refused("tokenizer_config.json", R"({"bos_token": {"text": "<s>"}})", "bos_token has no text \"content\"");
  refused("tokenizer_config.json", R"({"additional_special_tokens": 3})", "additional_special_tokens");
  refused("special_tokens_map.json", R"({"additional_special_tokens": [3]})", "additional_special_tokens");
}

TEST(Load, ASentencePieceModelWhoseFirstLengthIsABraceIsNoJson) {
  // 0x0A and 123: a line end and a brace.
  using namespace test_model;  // NOLINT(google-build-using-namespace)
  const std::string first = piece(std::string(114, 'x'), 0, kUnknown);
  ASSERT_EQ(first.substr(0, 2), "\n{");
  const Tokenizer tokenizer = Tokenizer::parse(first + piece("a") + trainer(kModelType, kBpe), "tokenizer.model");
  EXPECT_EQ(tokenizer.vocab_size(), 2);
  const std::string message = test::message_of<FormatError>([&] { Tokenizer::parse("\n{\n}", "tokenizer.json"); });
  EXPECT_NE(message.find("no model"), std::string::npos) << message;
}

}  // namespace
}  // namespace caravan::tokenizer

#include <gtest/gtest.h>

#include <filesystem>

#include "caravan/base/error.h"
#include "caravan/tokenizer/parts.h"
#include "tests/tokenizer/golden_files.h"

namespace caravan::tokenizer {
namespace {

constexpr const char* kEveryPart = "a tokenizer of parts";

class FileParts : public testing::Test {
 protected:
  // A copy of a golden tokenizer.model, so that files may stand beside it.
  std::filesystem::path put(const std::string& golden_name, const Json& config = nullptr) {
    const std::filesystem::path folder = scratch_.path() / golden_name;
    std::filesystem::create_directories(folder);
    test::write_file(folder / "tokenizer.model", golden_text(golden_name));
    if (!config.is_null()) {
      test::write_file(folder / "tokenizer_config.json", config.dump());
    }
    return folder;
  }

  test::ScratchDirectory scratch_;
};

// Ids of every text of the corpus, of a whole one and of one with special tokens in it.
void expect_the_same_ids(const Tokenizer& file, const Tokenizer& parts) {
  ASSERT_EQ(file.vocab_size(), parts.vocab_size());
  EXPECT_EQ(file.bos(), parts.bos());
  EXPECT_EQ(file.eos(), parts.eos());
  EXPECT_EQ(file.pad(), parts.pad());
  for (std::int32_t id = 0; id < file.vocab_size(); ++id) {
    ASSERT_EQ(file.is_special(id), parts.is_special(id)) << id;
  }
  for (const Json& one : golden("texts.json")) {
    const std::string text = one.get<std::string>();
    EXPECT_EQ(file.encode(text), parts.encode(text)) << text;
    EXPECT_EQ(file.encode(text, {.add_special = false, .plain = true}),
              parts.encode(text, {.add_special = false, .plain = true}))
        << text;
    const Ids ids = file.encode(text);
    EXPECT_EQ(file.decode(ids, /*skip_special=*/true), parts.decode(ids, /*skip_special=*/true)) << text;
  }
}

TEST_F(FileParts, OfSentencePieceGiveItsIds) {
  const auto folder = put("bpe.model");
  const tokenizer::FileParts found = parts_of_file(folder);
  EXPECT_EQ(found.parts.model, "llama");
  EXPECT_EQ(found.parts.unknown, 0);
  EXPECT_EQ(found.parts.add_bos, true);
  EXPECT_EQ(found.parts.add_eos, false);
  EXPECT_TRUE(found.notes.empty()) << found.notes.front();
  expect_the_same_ids(Tokenizer::load(folder), Tokenizer::assemble(found.parts, kEveryPart));
}

TEST_F(FileParts, TokensBesideSentencePieceStandBehindIt) {
  const Json config = {{"added_tokens_decoder",
                        {{"2", {{"content", "</s>"}, {"special", true}}},
                         {"620", {{"content", "<|im_start|>"}, {"special", true}}},
                         {"621", {{"content", "<tool>"}, {"special", false}}}}},
                       {"eos_token", "<|im_start|>"},
                       {"add_eos_token", true},
                       {"legacy", true}};
  const auto folder = put("bpe.model", config);
  const tokenizer::FileParts found = parts_of_file(folder / "tokenizer.model");
  ASSERT_EQ(found.parts.vocabulary.size(), 622U);
  EXPECT_EQ(found.parts.vocabulary[620].kind, TokenKind::kControl);
  EXPECT_EQ(found.parts.vocabulary[621].kind, TokenKind::kUserDefined);
  EXPECT_EQ(found.parts.vocabulary[621].score, -1000.0F);
  const Tokenizer file = Tokenizer::load(folder);
  const Tokenizer parts = Tokenizer::assemble(found.parts, kEveryPart);
  expect_the_same_ids(file, parts);
  EXPECT_EQ(file.encode("a<|im_start|>b<tool>"), parts.encode("a<|im_start|>b<tool>"));
  EXPECT_EQ(parts.encode("a").back(), 620) << "EOS is added";
}

TEST_F(FileParts, WhatTheyCannotSayIsNoted) {
  const auto folder = put("bpe.model", {{"add_bos_token", true}, {"legacy", false}});
  const tokenizer::FileParts found = parts_of_file(folder);
  ASSERT_EQ(found.notes.size(), 1U);
  EXPECT_NE(found.notes[0].find("behind special tokens"), std::string::npos) << found.notes[0];
}

TEST_F(FileParts, OfTiktokenGiveItsIds) {
  const auto folder = put("tiktoken.model");
  const tokenizer::FileParts found = parts_of_file(folder);
  EXPECT_EQ(found.parts.model, "gpt2");
  EXPECT_EQ(found.parts.pre, "llama-bpe");
  EXPECT_FALSE(found.parts.merges.empty());
  expect_the_same_ids(Tokenizer::load(folder), Tokenizer::assemble(found.parts, kEveryPart));
}

TEST_F(FileParts, OthersAreRefused) {
  EXPECT_NE(test::message_of<UnsupportedError>([&] { parts_of_file(put("unigram.model")); }).find("unigram"),
            std::string::npos);
  EXPECT_THROW(parts_of_file(kGoldenFolder + "llama2.json"), UnsupportedError);
  EXPECT_THROW(parts_of_file(scratch_.path()), FileError);
}

}  // namespace
}  // namespace caravan::tokenizer

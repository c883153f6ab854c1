#include "caravan/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "tests/support/scratch.h"

namespace caravan::tokenizer {
namespace {

using Ids = std::vector<std::int32_t>;

// Letters a to d, a space and a line end; no bytes besides.
Json small() {
  return Json::parse(R"({
    "version": "1.0",
    "added_tokens": [{"id": 0, "content": "<s>", "special": true, "normalized": false},
                     {"id": 10, "content": "</s>", "special": true, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": null,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "ignore_merges": false,
              "vocab": {"<s>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "\u0120": 5, "ab": 6, "cd": 7, "abcd": 8, "bc": 9},
              "merges": ["b c", ["a", "b"], "c d", "ab cd"]}})");
}

Tokenizer parse(const Json& json, const std::string& config = "") {
  return Tokenizer::parse(json.dump(), "dir/tokenizer.json", config);
}

// The message of the error of this type, or "".
template <typename Expected>
std::string refusal(const char* pointer, const Json& value) {
  Json json = small();
  json[Json::json_pointer(pointer)] = value;
  return test::message_of<Expected>([&] { parse(json); });
}

TEST(Tokenizer, MergesTheEarliestPairFirst) {
  const Tokenizer tokenizer = parse(small());
  EXPECT_EQ(tokenizer.encode("abcd"), (Ids{1, 9, 4}));
  EXPECT_EQ(tokenizer.encode("cdab ab"), (Ids{7, 6, 5, 6}));
  EXPECT_EQ(tokenizer.encode("<s>ab</s>"), (Ids{0, 6, 10}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.vocab_size(), 11);
  EXPECT_EQ(tokenizer.bytes(5), " ");
  EXPECT_EQ(tokenizer.bytes(10), "</s>");
  EXPECT_TRUE(tokenizer.is_special(10));
  EXPECT_FALSE(tokenizer.is_special(6));
  EXPECT_EQ(tokenizer.id_of("\u0120"), 5);
  EXPECT_EQ(tokenizer.id_of("</s>"), 10);
  EXPECT_EQ(tokenizer.id_of("x"), std::nullopt);
}

TEST(Tokenizer, IgnoreMergesTakesAWholePieceThatIsAToken) {
  Json json = small();
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(parse(json).encode("abcd abcda"), (Ids{8, 5, 1, 9, 4, 1}));
}

TEST(Tokenizer, DocumentsGetTheTokensThatTheTemplateLeavesOut) {
  const std::string names = R"("bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false})";
  EXPECT_EQ(parse(small()).encode_document("ab"), (Ids{6})) << "nothing names BOS and EOS";
  EXPECT_EQ(parse(small(), "{" + names + "}").encode_document("ab"), (Ids{0, 6, 10}));
  EXPECT_EQ(parse(small(), "{" + names + R"(, "add_bos_token": false})").encode_document("ab"), (Ids{6, 10}));
  EXPECT_EQ(parse(small(), "{" + names + R"(, "add_eos_token": false})").encode_document("ab"), (Ids{0, 6}));
  Json with_template = small();
  with_template["post_processor"] = Json::parse(R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}})");
  const Tokenizer tokenizer = parse(with_template, "{" + names + "}");
  EXPECT_EQ(tokenizer.encode("ab"), (Ids{0, 6}));
  EXPECT_EQ(tokenizer.encode("ab", {.add_special = false}), (Ids{6}));
  EXPECT_EQ(tokenizer.encode_document("ab"), (Ids{0, 6, 10}));
  EXPECT_EQ(tokenizer.bos(), 0);
  EXPECT_EQ(tokenizer.eos(), 10);
  EXPECT_EQ(tokenizer.pad(), std::nullopt);
}

TEST(Tokenizer, LoadsADirectoryWithItsConfig) {
  const test::ScratchDirectory scratch;
  test::write_file(scratch.path() / "tokenizer.json", small().dump());
  const std::string bare = Tokenizer::load(scratch.path()).fingerprint();
  EXPECT_EQ(bare.size(), 32U);
  test::write_file(scratch.path() / "tokenizer_config.json", R"({"eos_token": "</s>", "pad_token": null})");
  const Tokenizer tokenizer = Tokenizer::load(scratch.path() / "tokenizer.json");
  EXPECT_EQ(tokenizer.eos(), 10);
  EXPECT_NE(tokenizer.fingerprint(), bare);
  EXPECT_THROW(Tokenizer::load(scratch.path() / "nothing"), FileError);
  test::write_file(scratch.path() / "tokenizer_config.json", R"({"eos_token": "<unknown>"})");
  const std::string message = test::message_of<FormatError>([&] { Tokenizer::load(scratch.path()); });
  EXPECT_NE(message.find("tokenizer_config.json: eos_token is \"<unknown>\""), std::string::npos) << message;
}

TEST(Tokenizer, DamagedFilesAreNamed) {
  const auto damaged = [](const char* pointer, const Json& value, const char* expected) {
    const std::string message = refusal<FormatError>(pointer, value);
    EXPECT_NE(message.find(expected), std::string::npos) << pointer << ": " << message;
  };
  damaged("/version", "2.0", "version");
  damaged("/model/vocab/a", -1, "the id of the token \"a\"");
  damaged("/model/vocab/a", 1 << 24, "the id of the token \"a\"");
  damaged("/model/vocab/a", 2, "has the id 2 of another");
  damaged("/model/merges/0", "b x", "merge 0 names \"x\"");
  damaged("/model/merges/2", "d c", "names \"dc\"");
  damaged("/model/merges/0", "bc", "merge 0 is not two tokens");
  damaged("/model/merges/0", Json::array({"b"}), "merge 0 is not a pair");
  damaged("/model/merges", nullptr, "no list \"merges\"");
  damaged("/model/vocab", Json::array(), "no vocab");
  damaged("/model", nullptr, "no model");
  damaged("/added_tokens/1/id", 99, "tokenizers would give it 10");
  damaged("/added_tokens/1/content", "<s>", "stands twice");
  damaged("/added_tokens/1/special", 1, "not true or false");
  damaged("/added_tokens", 3, "not a list");
}

TEST(Tokenizer, WhatIsNotSupportedIsNamed) {
  const auto lacking = [](const char* pointer, const Json& value, const char* expected) {
    const std::string message = refusal<UnsupportedError>(pointer, value);
    EXPECT_NE(message.find(expected), std::string::npos) << pointer << ": " << message;
  };
  lacking("/model/type", "WordPiece", "WordPiece");
  lacking("/model/byte_fallback", true, "byte_fallback");
  lacking("/model/unk_token", "a", "unk_token");
  lacking("/model/dropout", 0.5, "dropout");
  lacking("/model/end_of_word_suffix", "</w>", "end_of_word_suffix");
  lacking("/normalizer", {{"type", "Lowercase"}}, "Lowercase");
  lacking("/pre_tokenizer", {{"type", "Punctuation"}}, "Punctuation");
  lacking("/pre_tokenizer", nullptr, "the decoder ByteLevel");
  lacking("/decoder", nullptr, "decoder");
  lacking("/decoder", {{"type", "WordPiece"}}, "WordPiece");
  lacking("/post_processor", {{"type", "BertProcessing"}}, "BertProcessing");
}

TEST(Tokenizer, WrongInputIsRefused) {
  const Tokenizer tokenizer = parse(small());
  EXPECT_NE(test::message_of<InputError>([&] { tokenizer.encode("ab\xFF"); }).find("byte 2"), std::string::npos);
  EXPECT_NE(test::message_of<InputError>([&] { tokenizer.decode(Ids{11}); }).find("11 is outside"), std::string::npos);
  EXPECT_THROW(tokenizer.bytes(-1), InputError);
}

// A search for the best pair from the front each time would take 10^12 / 2 steps.
TEST(Tokenizer, AMillionEqualLettersTakeNoTime) {
  Json json = small();
  json["model"]["vocab"]["aa"] = 11;
  json["model"]["vocab"]["aaaa"] = 12;
  json["model"]["merges"] = Json::array({"a a", "aa aa"});
  json["added_tokens"].erase(1);
  const Tokenizer tokenizer = parse(json);
  const std::clock_t begin = std::clock();
  EXPECT_EQ(tokenizer.encode(std::string(1 << 20, 'a')), Ids(1 << 18, 12));
  EXPECT_EQ(tokenizer.encode(std::string((1 << 20) - 1, 'a')).size(), (1U << 18) + 1);
  EXPECT_LT(std::clock() - begin, 20 * CLOCKS_PER_SEC);
}

TEST(Tokenizer, ThreadsShareOne) {
  const Tokenizer tokenizer = parse(small());
  const Ids expected = tokenizer.encode("abcd cdab <s> ab");
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 500; ++round) {
        wrong[i] += tokenizer.encode("abcd cdab <s> ab") == expected ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(StreamDecoder, NeverGivesHalfACharacter) {
  Json json = small();
  json["model"]["vocab"]["\u00c3"] = 11;
  json["model"]["vocab"]["\u00a9"] = 12;
  json["added_tokens"].erase(1);
  StreamDecoder stream(parse(json));
  EXPECT_EQ(stream.push(1), "a");
  EXPECT_EQ(stream.push(11), "");
  EXPECT_EQ(stream.push(12), "\u00e9");
  EXPECT_EQ(stream.push(0), "") << "special";
  EXPECT_EQ(stream.push(11), "");
  EXPECT_EQ(stream.push(2),
            "\ufffd"
            "b");
  EXPECT_EQ(stream.push(11), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace caravan::tokenizer

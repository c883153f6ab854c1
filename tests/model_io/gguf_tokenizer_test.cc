#include "caravan/model_io/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::model_io {
namespace {

using checkpoint::GgufFile;
using test::read_file;
using test::ScratchDirectory;

const std::filesystem::path kGolden = test::source_folder() / "tests/golden/tokenizers";

std::optional<GgufTokenizer> from(const std::string& json, const std::string& config = "", std::int64_t rows = 700,
                                  std::vector<std::string>* notes = nullptr) {
  std::vector<std::string> ignored;
  return tokenizer_from_files(json, config, "", rows, "tokenizer.json", notes == nullptr ? ignored : *notes);
}

GgufTokenizer through_a_file(const GgufTokenizer& tokenizer) {
  const ScratchDirectory scratch;
  checkpoint::GgufWriter(scratch.path() / "x.gguf", format_gguf_tokenizer(tokenizer), {}).finish();
  return read_gguf_tokenizer(GgufFile::open(scratch.path() / "x.gguf")).value();
}

TEST(GgufTokenizer, TakesTokensMergesKindsAndSplittingFromTokenizerJson) {
  const std::string text = read_file(kGolden / "llama3.json");
  const auto json = nlohmann::json::parse(text);
  std::vector<std::string> notes;
  const GgufTokenizer tokenizer = *from(text, "", 700, &notes);
  EXPECT_EQ(tokenizer.model, "gpt2");
  EXPECT_EQ(tokenizer.pre, "dbrx");  // Llama 3's pattern, and words are merged
  EXPECT_TRUE(notes.empty()) << notes.front();
  EXPECT_EQ(tokenizer.tokens.size(), 700U);
  EXPECT_EQ(tokenizer.merges.size(), json.at("model").at("merges").size());
  for (const auto& [token, id] : json.at("model").at("vocab").items()) {
    EXPECT_EQ(tokenizer.tokens[id.get<std::size_t>()], token);
  }
  for (const auto& one : json.at("added_tokens")) {
    const auto id = one.at("id").get<std::size_t>();
    EXPECT_EQ(tokenizer.tokens[id], one.at("content").get<std::string>());
    EXPECT_EQ(tokenizer.kinds[id], one.at("special").get<bool>() ? TokenKind::kControl : TokenKind::kUserDefined);
  }
  EXPECT_EQ(tokenizer.tokens.back(), "[PAD699]");  // the embedding has more rows than there are tokens
  EXPECT_EQ(tokenizer.kinds.back(), TokenKind::kUnused);
  EXPECT_EQ(from(read_file(kGolden / "gpt2.json"))->pre, "gpt-2");
}

TEST(GgufTokenizer, NamesTheWayOfSplittingWithWhatBecomesOfWholeWords) {
  auto json = nlohmann::ordered_json::parse(read_file(kGolden / "llama3.json"));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(from(json.dump())->pre, "llama-bpe");
  json = nlohmann::ordered_json::parse(read_file(kGolden / "gpt2.json"));
  json["model"]["ignore_merges"] = true;
  std::vector<std::string> notes;
  EXPECT_EQ(from(json.dump(), "", 700, &notes)->pre, "gpt-2");
  EXPECT_NE(notes.at(0).find("does not merge words that are tokens"), std::string::npos) << notes.at(0);
}

TEST(GgufTokenizer, ComesBackFromAFileAsItWas) {
  GgufTokenizer tokenizer = *from(read_file(kGolden / "llama3.json"), R"({"chat_template": "{{ messages }}"})");
  tokenizer.bos = 3;
  tokenizer.eot = 5;
  tokenizer.add_space_prefix = false;
  tokenizer.scores.assign(tokenizer.tokens.size(), -1.5F);
  const GgufTokenizer back = through_a_file(tokenizer);
  EXPECT_EQ(back.model, tokenizer.model);
  EXPECT_EQ(back.pre, tokenizer.pre);
  EXPECT_EQ(back.tokens, tokenizer.tokens);
  EXPECT_EQ(back.scores, tokenizer.scores);
  EXPECT_EQ(back.kinds, tokenizer.kinds);
  EXPECT_EQ(back.merges, tokenizer.merges);
  EXPECT_EQ(back.bos, 3);
  EXPECT_EQ(back.eot, 5);
  EXPECT_EQ(back.pad, std::nullopt);
  EXPECT_EQ(back.add_bos, tokenizer.add_bos);
  EXPECT_EQ(back.add_space_prefix, false);
  EXPECT_EQ(back.chat_template, "{{ messages }}");
  EXPECT_EQ(back.tokenizer_json, tokenizer.tokenizer_json);
}

TEST(GgufTokenizer, TheFilesThatItKeptComeBackToTheByte) {
  const std::string json = read_file(kGolden / "gpt2.json");
  const std::string config = R"({"bos_token": null, "odd": [1]})";
  std::vector<std::string> notes;
  const auto files = tokenizer_files(through_a_file(*from(json, config)), notes);
  EXPECT_EQ(files.at("tokenizer.json"), json);
  EXPECT_EQ(files.at("tokenizer_config.json"), config);
  EXPECT_TRUE(notes.empty());
}

// What a file of another program has: the vectors alone.
TEST(GgufTokenizer, FilesPutTogetherFromTheVectorsGiveTheSameIds) {
  const auto texts = nlohmann::json::parse(read_file(kGolden / "texts.json"));
  for (const char* name : {"gpt2.json", "llama3.json", "llama2.json"}) {
    const std::string json = read_file(kGolden / name);
    GgufTokenizer vectors = *from(json);
    vectors.tokenizer_json.clear();
    vectors.tokenizer_config.clear();
    std::vector<std::string> notes;
    const auto files = tokenizer_files(vectors, notes);
    EXPECT_TRUE(notes.empty());
    const auto a = tokenizer::Tokenizer::parse(json, name);
    const auto b =
        tokenizer::Tokenizer::parse(files.at("tokenizer.json"), "tokenizer.json", files.at("tokenizer_config.json"));
    const auto c = tokenizer::Tokenizer::assemble(parts_of(vectors), name);
    std::size_t compared = 0;
    for (const auto& text : texts) {
      const auto one = text.get<std::string>();
      EXPECT_EQ(a.encode(one, {.add_special = false}), b.encode(one, {.add_special = false})) << name << ": " << one;
      EXPECT_EQ(c.encode(one, {.add_special = false}), b.encode(one, {.add_special = false})) << name << ": " << one;
      EXPECT_EQ(a.encode(one, {.add_special = false, .plain = true}),
                b.encode(one, {.add_special = false, .plain = true}))
          << name << ": " << one;
      ++compared;
    }
    EXPECT_GT(compared, 50U);
  }
}

TEST(GgufTokenizer, BeginsAndEndsAsTheTemplateSays) {
  const std::string base = read_file(kGolden / "gpt2.json");
  auto json = nlohmann::ordered_json::parse(base);
  const std::string first = json.at("added_tokens").at(0).at("content");
  const auto id = json.at("added_tokens").at(0).at("id").get<std::int64_t>();
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", {{{"SpecialToken", {{"id", first}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", nlohmann::ordered_json::array()},
      {"special_tokens", {{first, {{"id", first}, {"ids", {id}}, {"tokens", {first}}}}}}};
  const std::string config = nlohmann::json{{"bos_token", first}, {"eos_token", {{"content", first}}}}.dump();
  const GgufTokenizer tokenizer = *from(json.dump(), config);
  EXPECT_EQ(tokenizer.bos, id);
  EXPECT_EQ(tokenizer.eos, id);
  EXPECT_EQ(tokenizer.add_bos, true);
  EXPECT_EQ(tokenizer.add_eos, false);  // the same token, but only before the text
  EXPECT_EQ(from(base, config)->add_bos, false);
}

TEST(GgufTokenizer, OfByteFallbackMakesScoresBytesAndTheUnknownToken) {
  const std::string json = R"({"version": "1.0", "added_tokens": [
      {"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null, "model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
      "vocab": {"<unk>": 0, "<s>": 1, "<0x41>": 2, "a": 3, "b": 4, "ab": 5, "aba": 6},
      "merges": ["a b", "ab a"]}})";
  const GgufTokenizer tokenizer = *from(json, R"({"bos_token": "<s>", "add_bos_token": true})", 7);
  EXPECT_EQ(tokenizer.model, "llama");
  EXPECT_EQ(tokenizer.kinds[0], TokenKind::kUnknown);
  EXPECT_EQ(tokenizer.kinds[1], TokenKind::kControl);
  EXPECT_EQ(tokenizer.kinds[2], TokenKind::kByte);
  EXPECT_EQ(tokenizer.scores, (std::vector<float>{0, 0, 0, 0, 0, -1, -2}));
  EXPECT_TRUE(tokenizer.merges.empty());
  EXPECT_EQ(tokenizer.unk, 0);
  EXPECT_EQ(tokenizer.add_bos, true);
  EXPECT_EQ(tokenizer.add_space_prefix, true);
}

TEST(GgufTokenizer, SaysWhatItLeavesOut) {
  std::vector<std::string> notes;
  EXPECT_EQ(from(R"({"model": {"type": "Unigram"}})", "", 10, &notes), std::nullopt);
  EXPECT_NE(notes.back().find("no BPE"), std::string::npos);
  EXPECT_EQ(from(R"({"model": {"type": "BPE", "vocab": {}, "merges": []}})", "", 10, &notes), std::nullopt);
  EXPECT_NE(notes.back().find("byte fallback"), std::string::npos);
  auto json = nlohmann::json::parse(read_file(kGolden / "gpt2.json"));
  json["normalizer"] = {{"type", "NFC"}};
  json["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}};
  from(json.dump(), "", 100, &notes);
  std::string all;
  for (const std::string& note : notes) {
    all += note + "\n";
  }
  for (const char* word : {"NFC", "no name for", "beyond the model's 100 rows"}) {
    EXPECT_NE(all.find(word), std::string::npos) << all;
  }
  GgufTokenizer other;
  other.model = "bert";
  other.tokens = {"a"};
  notes.clear();
  EXPECT_TRUE(tokenizer_files(other, notes).empty());
  EXPECT_NE(notes.at(0).find("\"bert\""), std::string::npos) << notes.at(0);
}

TEST(GgufTokenizer, RefusesDamagedFiles) {
  for (const char* json : {"{", "[]", R"({"model": {"vocab": [], "merges": [], "byte_fallback": true}})",
                           R"({"model": {"vocab": {"a": -1}, "merges": [], "byte_fallback": true}})",
                           R"({"model": {"vocab": {"a": 99999999}, "merges": [], "byte_fallback": true}})",
                           R"({"model": {"vocab": {"a": 1}, "byte_fallback": true}})",
                           R"({"model": {"vocab": {"a": 1}, "merges": ["a"], "byte_fallback": true}})",
                           R"({"model": {"vocab": {"a": 1}, "merges": [], "byte_fallback": true},
                               "added_tokens": [{"id": 3}]})"}) {
    std::vector<std::string> notes;
    try {
      EXPECT_EQ(from(json, "", 10, &notes), std::nullopt) << json;
      EXPECT_FALSE(notes.empty()) << json;
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find("tokenizer.json"), std::string::npos) << error.what();
    }
  }
}

TEST(GgufTokenizer, RefusesListsOfUnlikeLengthsAndKindsThatDoNotExist) {
  const auto refusal = [](const std::vector<checkpoint::GgufEntry>& more) {
    const ScratchDirectory scratch;
    std::vector<checkpoint::GgufEntry> metadata = {{"tokenizer.ggml.model", std::string("gpt2")},
                                                   {"tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"}}};
    metadata.insert(metadata.end(), more.begin(), more.end());
    checkpoint::GgufWriter(scratch.path() / "x.gguf", metadata, {}).finish();
    const GgufFile file = GgufFile::open(scratch.path() / "x.gguf");
    return test::message_of<FormatError>([&] { read_gguf_tokenizer(file); });
  };
  EXPECT_EQ(refusal({{"tokenizer.ggml.bos_token_id", std::uint32_t{7}}}), "");  // outside: as if it were not there
  EXPECT_NE(refusal({{"tokenizer.ggml.token_type", std::vector<std::int32_t>{1}}}).find("2 tokens"), std::string::npos);
  EXPECT_NE(refusal({{"tokenizer.ggml.token_type", std::vector<std::int32_t>{1, 9}}}).find("holds 9"),
            std::string::npos);
  EXPECT_NE(refusal({{"tokenizer.ggml.scores", std::vector<float>{1, 2, 3}}}).find("3 elements"), std::string::npos);
  EXPECT_NE(refusal({{"tokenizer.ggml.merges", std::uint32_t{3}}}).find("array of texts"), std::string::npos);
}

}  // namespace
}  // namespace caravan::model_io

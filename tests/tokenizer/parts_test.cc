#include "caravan/tokenizer/parts.h"

#include <gtest/gtest.h>

#include <deque>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "tests/tokenizer/golden_files.h"

namespace caravan::tokenizer {
namespace {

// The model "gpt2" of a golden tokenizer.json, as a GGUF file has it.  Texts live in `keep`.
TokenizerParts parts_of(const std::string& file, const std::string& pre, std::deque<std::string>& keep) {
  const Json json = golden(file);
  TokenizerParts parts;
  parts.model = "gpt2";
  parts.pre = pre;
  parts.vocabulary.resize(json.at("model").at("vocab").size());
  for (const auto& [token, id] : json.at("model").at("vocab").items()) {
    parts.vocabulary.at(id.get<std::size_t>()).text = keep.emplace_back(token);
  }
  for (const Json& merge : json.at("model").at("merges")) {
    parts.merges.push_back(keep.emplace_back(merge.is_string()
                                                 ? merge.get<std::string>()
                                                 : merge[0].get<std::string>() + " " + merge[1].get<std::string>()));
  }
  for (const Json& added : json.at("added_tokens")) {
    parts.vocabulary.at(added.at("id").get<std::size_t>()).kind = TokenKind::kControl;
  }
  parts.bos = 0;
  parts.eos = 1;
  return parts;
}

// Every case of a variant of tests/golden/tokenizers/expected.json that has the same ids without a template.
void expect_the_ids_of(const std::string& variant, const Tokenizer& tokenizer) {
  const Json texts = golden("texts.json");
  int compared = 0;
  for (const Json& one : golden("expected.json")) {
    if (one.at("name") != variant) {
      continue;
    }
    for (const Json& each : one.at("cases")) {
      const std::string text = texts.at(each.at("text").get<std::size_t>()).get<std::string>();
      const Ids bare = each.contains("bare") ? each.at("bare").get<Ids>() : each.at("ids").get<Ids>();
      const Ids plain = each.contains("plain") ? each.at("plain").get<Ids>() : bare;
      EXPECT_EQ(tokenizer.encode(text, {.add_special = false}), bare) << text;
      EXPECT_EQ(tokenizer.encode(text, {.add_special = false, .plain = true}), plain) << text;
      EXPECT_EQ(tokenizer.decode(bare), text);
      ++compared;
    }
  }
  EXPECT_GT(compared, 50);
}

TEST(Parts, TheNamesOfPatternsMeanThoseOfTokenizerJson) {
  for (const auto& [file, pre, variant] :
       {std::tuple<const char*, const char*, const char*>{"gpt2.json", "gpt-2", "gpt2"},
        {"gpt2.json", "smollm", "smollm"},
        {"llama3.json", "dbrx", "isolated_false_llama3"},
        {"llama3.json", "qwen2", "qwen2_without_nfc"},
        {"llama3.json", "llama4", "llama4"}}) {
    std::deque<std::string> keep;
    const Tokenizer tokenizer = Tokenizer::assemble(parts_of(file, pre, keep), "model.gguf");
    if (std::string(variant) != "qwen2_without_nfc") {
      expect_the_ids_of(variant, tokenizer);
    }
  }
}

TEST(Parts, AWordThatIsATokenIsTakenWholeForLlama3) {
  std::deque<std::string> keep;
  TokenizerParts parts = parts_of("llama3.json", "llama-bpe", keep);
  parts.vocabulary.push_back({.text = "qzxj"});  // a token that no merge makes
  const auto id = static_cast<std::int32_t>(parts.vocabulary.size() - 1);
  EXPECT_EQ(Tokenizer::assemble(parts, "x").encode("qzxj"), (Ids{0, id})) << "and BOS is added";
  parts.pre = "dbrx";
  EXPECT_GT(Tokenizer::assemble(parts, "x").encode("qzxj").size(), 2U);
  parts.add_bos = true;
  parts.add_eos = true;
  const Ids ids = Tokenizer::assemble(parts, "x").encode("a");
  EXPECT_EQ(ids.front(), 0);
  EXPECT_EQ(ids.back(), 1);
}

TEST(Parts, UserDefinedTokensAreTextThatIsNeverCut) {
  std::deque<std::string> keep;
  TokenizerParts parts = parts_of("gpt2.json", "gpt-2", keep);
  parts.vocabulary.push_back({.text = "  ", .kind = TokenKind::kUserDefined});
  parts.vocabulary.push_back({.text = "", .kind = TokenKind::kUnused});
  parts.vocabulary.push_back({.text = "", .kind = TokenKind::kUnused});
  const auto id = static_cast<std::int32_t>(parts.vocabulary.size() - 3);
  const Tokenizer tokenizer = Tokenizer::assemble(parts, "x");
  const Ids ids = tokenizer.encode("a  a", {.add_special = false, .plain = true});
  EXPECT_EQ(std::count(ids.begin(), ids.end(), id), 1);
  EXPECT_FALSE(tokenizer.is_special(id));
  EXPECT_EQ(tokenizer.decode(ids, /*skip_special=*/true), "a  a");
}

// The vocabulary of bpe.model, as a GGUF file has it.
TokenizerParts llama_parts(std::deque<std::string>& keep) {
  const Json json = golden("llama2.json");
  TokenizerParts parts;
  parts.model = "llama";
  parts.vocabulary.resize(json.at("model").at("vocab").size());
  for (const auto& [token, id] : json.at("model").at("vocab").items()) {
    const auto place = id.get<std::size_t>();
    // The trainer's scores: 0, -1, -2 ... from the first piece behind the bytes on.
    const float score = place < 259 ? 0 : -static_cast<float>(place - 259);
    const TokenKind kind = place == 0    ? TokenKind::kUnknown
                           : place < 3   ? TokenKind::kControl
                           : place < 259 ? TokenKind::kByte
                                         : TokenKind::kNormal;
    parts.vocabulary[place] = {.text = keep.emplace_back(token), .score = score, .kind = kind};
  }
  parts.bos = 1;
  parts.eos = 2;
  return parts;
}

TEST(Parts, LlamasKindGivesTheIdsOfSentencePiece) {
  std::deque<std::string> keep;
  TokenizerParts parts = llama_parts(keep);
  const Tokenizer tokenizer = Tokenizer::assemble(parts, "model.gguf");
  parts.add_space_prefix = false;
  const Tokenizer bare = Tokenizer::assemble(parts, "model.gguf");
  EXPECT_NE(tokenizer.fingerprint(), bare.fingerprint());
  const Json texts = golden("texts.json");
  for (const Json& variant : golden("sentencepiece.json")) {
    const bool prefixed = variant.at("name") == "bpe";
    if (!prefixed && variant.at("name") != "bpe_no_prefix") {
      continue;
    }
    for (const Json& one : variant.at("cases")) {
      const std::string text = texts.at(one.at("text").get<std::size_t>()).get<std::string>();
      const Ids ids = one.at("ids").get<Ids>();
      EXPECT_EQ((prefixed ? tokenizer : bare).encode(text, {.add_special = false, .plain = true}), ids) << text;
      EXPECT_EQ((prefixed ? tokenizer : bare).decode(ids, /*skip_special=*/true), one.value("decoded", text));
    }
  }
  EXPECT_EQ(tokenizer.encode("a</s>a").size(), 6U) << "BOS, and a space before each stretch";
  EXPECT_EQ(tokenizer.encode("").front(), 1);
  EXPECT_EQ(tokenizer.decode(Ids{1, 2}), "<s></s>");
}

// What both make of every text of the corpus.
void expect_the_same(const Tokenizer& a, const Tokenizer& b, const std::string& name) {
  ASSERT_EQ(a.bos(), b.bos()) << name;
  for (const Json& one : golden("texts.json")) {
    const std::string text = one.get<std::string>();
    const Ids ids = a.encode(text);
    EXPECT_EQ(ids, b.encode(text)) << name << ": " << text;
    EXPECT_EQ(a.encode(text, {.add_special = false, .plain = true}),
              b.encode(text, {.add_special = false, .plain = true}))
        << name << ": " << text;
    EXPECT_EQ(a.decode(ids), b.decode(ids)) << name << ": " << text;
    EXPECT_EQ(a.decode(ids, /*skip_special=*/true), b.decode(ids, /*skip_special=*/true)) << name << ": " << text;
  }
}

// The tokenizer that to_tokenizer_json() writes; BOS and EOS are told by the other file of a directory.
Tokenizer through_json(const TokenizerParts& parts) {
  const auto name = [&](std::int32_t id) { return std::string(parts.vocabulary[static_cast<std::size_t>(id)].text); };
  const Json config = {{"bos_token", name(*parts.bos)}, {"eos_token", name(*parts.eos)}};
  return Tokenizer::parse(to_tokenizer_json(parts, "x"), "tokenizer.json", config.dump());
}

TEST(Parts, TheirTokenizerJsonGivesTheSameIdsForEveryNameOfAPattern) {
  std::size_t forms = 0;
  for (const PreTokenizerForm& form : pre_tokenizer_forms()) {
    const std::string pre(form.names.front());
    std::deque<std::string> keep;
    TokenizerParts parts = parts_of(form.patterns.size() == 1 ? "llama3.json" : "gpt2.json", pre, keep);
    expect_the_same(Tokenizer::assemble(parts, "x"), through_json(parts), pre);
    ++forms;
  }
  EXPECT_EQ(forms, 8U);
}

TEST(Parts, TheirTokenizerJsonKeepsIdsWhereSomeAreFree) {
  std::deque<std::string> keep;
  TokenizerParts parts = parts_of("llama3.json", "llama-bpe", keep);
  parts.vocabulary.push_back({.text = "[PAD640]", .kind = TokenKind::kUnused});
  parts.vocabulary.push_back({.text = "", .kind = TokenKind::kUnused});
  parts.vocabulary.push_back({.text = "<|eot_id|>", .kind = TokenKind::kControl});
  parts.vocabulary.push_back({.text = "<tool>", .kind = TokenKind::kUserDefined});
  parts.add_eos = true;
  const Tokenizer tokenizer = through_json(parts);
  EXPECT_EQ(tokenizer.id_of("<|eot_id|>"), 642);
  EXPECT_EQ(tokenizer.id_of("<tool>"), 643);
  EXPECT_FALSE(tokenizer.is_special(643));
  EXPECT_EQ(tokenizer.id_of("[PAD640]"), std::nullopt);
  expect_the_same(Tokenizer::assemble(parts, "x"), tokenizer, "with free ids");
  EXPECT_EQ(tokenizer.encode("a<|eot_id|>"), (Ids{0, *tokenizer.id_of("a"), 642, 1})) << "BOS and EOS around";
}

TEST(Parts, TheTokenizerJsonOfLlamasKindGivesTheSameIds) {
  std::deque<std::string> keep;
  TokenizerParts parts = llama_parts(keep);
  expect_the_same(Tokenizer::assemble(parts, "x"), through_json(parts), "with a space");
  parts.vocabulary.push_back({.text = "[PAD620]", .kind = TokenKind::kUnused});
  parts.vocabulary.push_back({.text = "<sep>", .kind = TokenKind::kUserDefined});
  parts.vocabulary.push_back({.text = "\u2581\u2581\u2581", .kind = TokenKind::kUserDefined});
  parts.add_space_prefix = false;
  parts.add_bos = false;
  expect_the_same(Tokenizer::assemble(parts, "x"), through_json(parts), "without");
  EXPECT_EQ(through_json(parts).encode("   "), Ids{622});
  EXPECT_EQ(through_json(parts).encode("<sep>"), Ids{621});
}

TEST(Parts, WhatATokenizerJsonCannotSayIsRefused) {
  std::deque<std::string> keep;
  TokenizerParts parts = llama_parts(keep);
  const auto refusal = [&] { return test::message_of<UnsupportedError>([&] { to_tokenizer_json(parts, "x.gguf"); }); };
  parts.vocabulary.push_back({.text = "aaaa\u25B6", .kind = TokenKind::kNormal});
  EXPECT_NE(refusal().find("which is no piece itself"), std::string::npos) << refusal();
  parts.vocabulary.back() = {.text = "aa", .kind = TokenKind::kUnused};
  ASSERT_EQ(Tokenizer::assemble(parts, "x").id_of("aa"), 620);
  EXPECT_NE(refusal().find("unused piece that merges make"), std::string::npos) << refusal();
  parts.vocabulary.back() = {.text = "a\u2581\u2581", .kind = TokenKind::kUserDefined};
  EXPECT_NE(refusal().find("holds a space"), std::string::npos) << refusal();
  parts.pre = "kimi-k2";
  parts.model = "gpt2";
  EXPECT_NE(refusal().find("kimi-k2"), std::string::npos) << refusal();
}

TEST(Parts, FilesWithoutKindsAreReadByTheirNames) {
  std::deque<std::string> keep;
  TokenizerParts parts = llama_parts(keep);
  const Tokenizer tokenizer = Tokenizer::assemble(parts, "x");
  for (VocabularyEntry& entry : parts.vocabulary) {
    entry.kind = entry.kind == TokenKind::kControl ? entry.kind : TokenKind::kNormal;
  }
  EXPECT_EQ(Tokenizer::assemble(parts, "x").encode("H\u00E9llo \U0001F600"), tokenizer.encode("H\u00E9llo \U0001F600"));
}

TEST(Parts, ContradictionsAreOneSentence) {
  const auto refused = [](auto change, const char* expected) {
    std::deque<std::string> keep;
    TokenizerParts parts = parts_of("gpt2.json", "gpt-2", keep);
    change(parts);
    const std::string message = test::message_of<Error>([&] { Tokenizer::assemble(parts, "model.gguf"); });
    EXPECT_NE(message.find(expected), std::string::npos) << message;
    EXPECT_EQ(message.rfind("model.gguf: ", 0), 0U) << message;
  };
  refused([](TokenizerParts& parts) { parts.model = "bert"; }, "the kind \"bert\" is not supported");
  refused([](TokenizerParts& parts) { parts.pre = "kimi-k2"; }, "the pre-tokenizer \"kimi-k2\" is not supported");
  refused([](TokenizerParts& parts) { parts.vocabulary.clear(); }, "no tokens");
  refused([](TokenizerParts& parts) { parts.bos = 640; }, "the BOS token is 640, but there are 640 tokens");
  refused([](TokenizerParts& parts) { parts.eos = -1; }, "the EOS token is -1");
  refused([](TokenizerParts& parts) { parts.merges.push_back("x y"); }, "names \"xy\"");
  refused([](TokenizerParts& parts) { parts.merges.push_back("q\u0120 a"); }, "which is not in the vocabulary");
  refused([](TokenizerParts& parts) { parts.merges.push_back("ab"); }, "not two tokens");
  refused([](TokenizerParts& parts) { parts.merges.push_back(" a"); }, "empty half");
  refused([](TokenizerParts& parts) { parts.vocabulary.push_back({.text = "a"}); }, "has two ids");
  refused([](TokenizerParts& parts) { parts.vocabulary.push_back({.text = "\xC3"}); }, "not UTF-8");
  refused(
      [](TokenizerParts& parts) {
        parts.model = "llama";
        parts.vocabulary.push_back(parts.vocabulary.back());
      },
      "is piece 639 again");
  refused(
      [](TokenizerParts& parts) {
        parts.model = "llama";
        parts.vocabulary = {{"a"}, {"<0x01>", 0, TokenKind::kByte}};
      },
      "lacks <0x00>");
}

}  // namespace
}  // namespace caravan::tokenizer

#include "caravan/model_io/model_tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/checkpoint/gguf.h"
#include "caravan/model_io/gguf_tokenizer.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::model_io {
namespace {

using checkpoint::GgufEntry;
using checkpoint::GgufWriter;
using test::read_file;
using test::ScratchDirectory;
using test::write_file;
using tokenizer::Tokenizer;

const std::filesystem::path kGolden = test::source_folder() / "tests/golden/tokenizers";

// The tokenizer of a golden tokenizer.json as other programs' files have it: vectors alone.
GgufTokenizer vectors_of(const char* name, const std::string& config) {
  std::vector<std::string> notes;
  GgufTokenizer vectors = *tokenizer_from_files(read_file(kGolden / name), config, "", 640, name, notes);
  vectors.tokenizer_json.clear();
  vectors.tokenizer_config.clear();
  return vectors;
}

tokenizer::ChatRequest greeting() {
  tokenizer::ChatRequest request;
  request.messages = Json::array({Json{{"role", "user"}, {"content", "Hi"}}});
  return request;
}

std::filesystem::path written(const ScratchDirectory& scratch, const std::vector<GgufEntry>& metadata) {
  const std::filesystem::path path = scratch.path() / "x.gguf";
  GgufWriter(path, metadata, {}).finish();
  return path;
}

TEST(ModelTokenizer, IsPutTogetherFromAGgufFilesVectors) {
  const auto texts = nlohmann::json::parse(read_file(kGolden / "texts.json"));
  for (const auto& [name, config] :
       {std::pair("gpt2.json", R"({"bos_token": "<|begin_of_text|>", "add_bos_token": true})"),
        {"llama3.json", ""},
        {"llama2.json", R"({"bos_token": "<s>", "eos_token": "</s>", "add_eos_token": true})"}}) {
    const ScratchDirectory scratch;
    const GgufTokenizer vectors = vectors_of(name, config);
    const std::filesystem::path file = written(scratch, format_gguf_tokenizer(vectors));
    const Tokenizer tokenizer = load_tokenizer(file);
    EXPECT_EQ(find_tokenizer(file)->fingerprint(), tokenizer.fingerprint());
    EXPECT_EQ(tokenizer.fingerprint(), Tokenizer::assemble(parts_of(vectors), "x").fingerprint()) << name;
    const Tokenizer original = Tokenizer::parse(read_file(kGolden / name), name);
    for (const auto& one : texts) {
      const auto text = one.get<std::string>();
      EXPECT_EQ(tokenizer.encode(text, {.add_special = false}), original.encode(text, {.add_special = false}))
          << name << ": " << text;
    }
    EXPECT_EQ(tokenizer.encode("a").front() == tokenizer.bos(), vectors.add_bos == true) << name;
    EXPECT_EQ(tokenizer.encode("a").back() == tokenizer.eos(), vectors.add_eos == true) << name;
  }
}

TEST(ModelTokenizer, TheTokenizerJsonThatAFileKeptGoesFirst) {
  const ScratchDirectory scratch;
  GgufTokenizer vectors = vectors_of("gpt2.json", "");
  vectors.tokenizer_json = read_file(kGolden / "llama3.json");
  const Tokenizer tokenizer = load_tokenizer(written(scratch, format_gguf_tokenizer(vectors)));
  EXPECT_EQ(tokenizer.encode("12345"), Tokenizer::parse(vectors.tokenizer_json, "x").encode("12345"));
}

TEST(ModelTokenizer, OfADirectoryOrItsFileIsThatOfTheTokenizerRoom) {
  const ScratchDirectory scratch;
  EXPECT_EQ(find_tokenizer(scratch.path()), std::nullopt);
  EXPECT_THROW(load_tokenizer(scratch.path()), FileError);
  write_file(scratch.path() / "tokenizer.model", read_file(kGolden / "bpe.model"));
  EXPECT_EQ(find_tokenizer(scratch.path())->vocab_size(), 620);
  EXPECT_EQ(load_tokenizer(scratch.path() / "tokenizer.model").vocab_size(), 620);
  EXPECT_EQ(load_chat_template(scratch.path()), std::nullopt);
  write_file(scratch.path() / "chat_template.jinja", "{{ messages[0].content }}");
  for (const std::filesystem::path& path : {scratch.path(), scratch.path() / "tokenizer.model"}) {
    EXPECT_EQ(load_chat_template(path)->render(greeting()), "Hi");
  }
}

TEST(ModelTokenizer, AFileWithoutOneSaysSo) {
  const ScratchDirectory scratch;
  const std::filesystem::path file = written(scratch, {{"tokenizer.ggml.model", std::string("no_vocab")}});
  EXPECT_EQ(find_tokenizer(file), std::nullopt);
  EXPECT_EQ(load_chat_template(file), std::nullopt);
  EXPECT_NE(test::message_of<FileError>([&] { load_tokenizer(file); }).find("has no tokenizer"), std::string::npos);
}

TEST(ModelTokenizer, WhatCannotBeAssembledIsNamedWithTheFile) {
  const ScratchDirectory scratch;
  GgufTokenizer vectors = vectors_of("gpt2.json", "");
  vectors.pre = "kimi-k2";
  const std::filesystem::path file = written(scratch, format_gguf_tokenizer(vectors));
  const std::string message = test::message_of<UnsupportedError>([&] { find_tokenizer(file); });
  EXPECT_EQ(message, file.string() + ": the pre-tokenizer \"kimi-k2\" is not supported");
}

TEST(ModelTokenizer, TheTemplateOfAGgufFileKnowsItsSpecialTokens) {
  const ScratchDirectory scratch;
  GgufTokenizer vectors = vectors_of("llama2.json", R"({"bos_token": "<s>", "eos_token": "</s>"})");
  vectors.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";
  const std::filesystem::path file = written(scratch, format_gguf_tokenizer(vectors));
  const tokenizer::ChatRequest request = greeting();
  EXPECT_EQ(load_chat_template(file)->render(request), "<s>Hi</s>");
  EXPECT_EQ(load_chat_template(file, "default", /*with_tools=*/true)->render(request), "<s>Hi</s>");
  EXPECT_NE(test::message_of<InputError>([&] { load_chat_template(file, "rag"); }).find("no chat template \"rag\""),
            std::string::npos);
  const std::vector<std::int32_t> ids = load_chat_template(file)->encode(load_tokenizer(file), request);
  EXPECT_EQ(ids.front(), 1);
  EXPECT_EQ(ids.back(), 2);
}

}  // namespace
}  // namespace caravan::model_io

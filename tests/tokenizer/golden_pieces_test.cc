// The models of SentencePiece and the file of tiktoken in tests/golden/tokenizers, beside what the libraries themselves
// and transformers made of the corpus.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/tokenizer/golden_files.h"

namespace caravan::tokenizer {
namespace {

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

Tokenizer model_of(const Json& variant) {
  const std::string model = golden_text(variant.at("base").get<std::string>() + ".model");
  return Tokenizer::parse(model + from_hex(variant.at("behind").get<std::string>()), "tokenizer.model");
}

class GoldenSentencePiece : public ::testing::TestWithParam<Json> {};

TEST_P(GoldenSentencePiece, EncodesAndDecodesAsTheReference) {
  const Json texts = golden("texts.json");
  const Tokenizer tokenizer = model_of(GetParam());
  const EncodeOptions plain = {.add_special = false, .plain = true};
  for (const Json& one : GetParam().at("cases")) {
    const std::string text = texts.at(one.at("text").get<std::size_t>()).get<std::string>();
    const Ids ids = one.at("ids").get<Ids>();
    const std::string decoded = one.value("decoded", text);
    EXPECT_EQ(tokenizer.encode(text, plain), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), decoded) << text;
    EXPECT_EQ(streamed(tokenizer, ids), decoded) << text;
  }
  for (const Json& one : GetParam().at("damaged")) {
    const std::string bytes = from_hex(one.at("bytes").get<std::string>());
    EXPECT_EQ(tokenizer.encode(bytes, plain), one.at("ids").get<Ids>()) << one.dump();
  }
  for (const Json& one : GetParam().at("decodes")) {
    const Ids ids = one.at("ids").get<Ids>();
    EXPECT_EQ(tokenizer.decode(ids), one.at("decoded").get<std::string>()) << one.dump();
    EXPECT_EQ(streamed(tokenizer, ids), one.at("decoded").get<std::string>()) << one.dump();
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenSentencePiece, ::testing::ValuesIn(golden_list("sentencepiece.json")),
                         [](const auto& info) { return info.param.at("name").template get<std::string>(); });

class GoldenBeside : public ::testing::TestWithParam<Json> {};

TEST_P(GoldenBeside, SpecialTokensAreThoseOfTransformers) {
  const auto file = [](const char* name) {
    const Json& json = GetParam().at(name);
    return json.is_null() ? std::string() : json.dump();
  };
  const Tokenizer tokenizer = Tokenizer::parse(golden_text("bpe.model"), "dir/tokenizer.model", file("config"),
                                               file("special_tokens_map"), file("added_tokens"));
  EXPECT_EQ(tokenizer.vocab_size(), GetParam().at("size").get<std::int64_t>());
  for (const Json& one : GetParam().at("cases")) {
    const std::string text = one.at("text").get<std::string>();
    const Ids ids = one.at("ids").get<Ids>();
    EXPECT_EQ(tokenizer.encode(text), ids) << text;
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false}), one.at("bare").get<Ids>()) << text;
    EXPECT_EQ(tokenizer.decode(ids), one.at("decoded").get<std::string>()) << text;
    EXPECT_EQ(tokenizer.decode(ids, /*skip_special=*/true), one.at("skipped").get<std::string>()) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenBeside, ::testing::ValuesIn(golden_list("beside.json")),
                         [](const auto& info) { return info.param.at("name").template get<std::string>(); });

std::string base64(const std::string& bytes) {
  constexpr const char* kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      text += i + k <= bytes.size() ? kLetters[bits >> (18 - 6 * k) & 63] : '=';
    }
  }
  return text;
}

// tiktoken.model, with as many ranks as asked for: see filled() of piece_goldens.py.
std::string tiktoken_file(std::int64_t ranks) {
  std::string file = golden_text("tiktoken.model");
  const std::int64_t there = std::count(file.begin(), file.end(), '\n');
  for (std::int64_t i = 0; there + i < ranks; ++i) {
    const std::string bytes = {'\xFF', '\xFE', static_cast<char>(i >> 16), static_cast<char>(i >> 8),
                               static_cast<char>(i)};
    file += base64(bytes) + " " + std::to_string(there + i) + "\n";
  }
  return file;
}

class GoldenTiktoken : public ::testing::TestWithParam<Json> {};

TEST_P(GoldenTiktoken, EncodesAndDecodesAsTheReference) {
  const Json texts = golden("texts.json");
  const Tokenizer tokenizer =
      Tokenizer::parse(tiktoken_file(GetParam().at("ranks").get<std::int64_t>()), "tokenizer.model");
  EXPECT_EQ(tokenizer.vocab_size(), GetParam().at("size").get<std::int64_t>());
  for (const auto& [id, name] : GetParam().at("names").items()) {
    EXPECT_EQ(tokenizer.id_of(name.get<std::string>()), std::stoi(id)) << name;
    EXPECT_TRUE(tokenizer.is_special(std::stoi(id)));
  }
  for (const Json& one : GetParam().at("cases")) {
    const Json& named = one.at("text");
    const std::string text =
        named.is_string() ? named.get<std::string>() : texts.at(named.get<std::size_t>()).get<std::string>();
    const Ids ids = one.at("ids").get<Ids>();
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false}), ids) << text;
    EXPECT_EQ(tokenizer.encode(text, {.add_special = false, .plain = true}),
              one.contains("plain") ? one.at("plain").get<Ids>() : ids)
        << text;
    EXPECT_EQ(tokenizer.decode(ids), text);
    Ids with_bos = ids;
    with_bos.insert(with_bos.begin(), *tokenizer.bos());
    EXPECT_EQ(tokenizer.encode(text), with_bos);
  }
  for (const Json& one : GetParam().at("decodes")) {
    const Ids ids = one.at("ids").get<Ids>();
    EXPECT_EQ(tokenizer.decode(ids), one.at("decoded").get<std::string>()) << one.dump();
    EXPECT_EQ(streamed(tokenizer, ids), one.at("decoded").get<std::string>()) << one.dump();
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTiktoken, ::testing::ValuesIn(golden_list("tiktoken.json")),
                         [](const auto& info) { return info.param.at("name").template get<std::string>(); });

// long_words() of piece_goldens.py.
std::string long_word(const std::string& name) {
  constexpr std::size_t kBytes = std::size_t{1} << 20;
  std::string text;
  if (name != "letters") {
    const std::string unit = name == "one letter" ? "a" : name == "two letters" ? "ab" : " ";
    while (text.size() < kBytes) {
      text += unit;
    }
    return text;
  }
  std::uint64_t state = 1;
  for (std::size_t i = 0; i < kBytes; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    const std::uint64_t place = (state >> 40) % 28;
    text += place < 26 ? std::string(1, static_cast<char>('a' + place)) : place == 26 ? "\u00E9" : "\u65E5";
  }
  return text;
}

TEST(GoldenLongWords, AMegabyteWithoutASpaceIsTheReferencesAndTakesNoTime) {
  for (const Json& one : golden("long_words.json")) {
    const std::string text = long_word(one.at("word").get<std::string>());
    const Tokenizer tokenizer = Tokenizer::parse(golden_text(one.at("model").get<std::string>() + ".model"), "x.model");
    const std::clock_t begin = std::clock();
    const Ids ids = tokenizer.encode(text, {.add_special = false, .plain = true});
    // A search from the front for each merge would take 10^12 / 2 steps.
    EXPECT_LT(std::clock() - begin, 20 * CLOCKS_PER_SEC) << one.dump();
    std::uint64_t digest = 0;
    for (const std::int32_t id : ids) {
      digest = digest * 6364136223846793005 + static_cast<std::uint64_t>(id) + 1;
    }
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(digest));
    EXPECT_EQ(ids.size(), one.at("count").get<std::size_t>()) << one.dump();
    EXPECT_EQ(digits, one.at("digest").get<std::string>()) << one.dump();
    EXPECT_EQ(tokenizer.decode(ids), text);
  }
}

TEST(GoldenTiktoken, TextThatIsNotUtf8IsRefusedWithItsPlace) {
  const Tokenizer tokenizer = Tokenizer::parse(golden_text("tiktoken.model"), "tokenizer.model");
  EXPECT_NE(test::message_of<InputError>([&] { tokenizer.encode("ab\xC3"); }).find("byte 2"), std::string::npos);
}

TEST(GoldenSentencePiece, ADocumentThatIsNotUtf8IsRefusedWithItsPlace) {
  const Tokenizer tokenizer = Tokenizer::parse(golden_text("bpe.model"), "tokenizer.model");
  EXPECT_NE(test::message_of<InputError>([&] { tokenizer.encode_document("ab\xC3"); }).find("byte 2"),
            std::string::npos);
}

}  // namespace
}  // namespace caravan::tokenizer

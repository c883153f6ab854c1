#include "caravan/tokenizer/sentencepiece.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "caravan/base/error.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/support/scratch.h"
#include "tests/tokenizer/piece_model.h"

namespace caravan::tokenizer {
namespace {

using namespace test_model;  // NOLINT(google-build-using-namespace): the language of these tests
using Ids = std::vector<std::int32_t>;

constexpr EncodeOptions kPlain = {.add_special = false, .plain = true};

Tokenizer parse(const std::string& model, const std::string& config = "") {
  return Tokenizer::parse(model, "dir/tokenizer.model", config);
}

TEST(SentencePiece, MergesByScoreAndBringsItsOwnSpace) {
  const Tokenizer tokenizer = parse(small_model());
  EXPECT_EQ(tokenizer.encode("abc", kPlain), (Ids{10, 6})) << "ab before bc";
  EXPECT_EQ(tokenizer.encode("bcd", kPlain), (Ids{3, 9, 7}));
  EXPECT_EQ(tokenizer.encode(" ab", kPlain), (Ids{3, 10}));
  EXPECT_EQ(tokenizer.encode("xy a", kPlain), (Ids{3, 0, 3, 4})) << "unknown neighbours are one";
  EXPECT_EQ(tokenizer.encode("", kPlain), Ids{});
  EXPECT_EQ(tokenizer.encode("", {}), Ids{1}) << "BOS, which the model names";
  EXPECT_EQ(tokenizer.encode_document("ab"), (Ids{1, 10, 2}));
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 2);
  EXPECT_EQ(tokenizer.pad(), std::nullopt);
  EXPECT_EQ(tokenizer.vocab_size(), 11);
  EXPECT_EQ(tokenizer.bytes(10), " ab");
  EXPECT_EQ(tokenizer.id_of("\u2581ab"), 10);
}

TEST(SentencePiece, ControlSymbolsWrittenInTheTextAreSpecialUnlessPlain) {
  const Tokenizer tokenizer = parse(small_model());
  EXPECT_EQ(tokenizer.encode("ab</s>ab", {.add_special = false}), (Ids{10, 2, 10})) << "each stretch by itself";
  EXPECT_EQ(tokenizer.encode("d<s>", {.add_special = false}), (Ids{3, 7, 1}));
  EXPECT_EQ(tokenizer.encode("d<s>", kPlain), (Ids{3, 7, 0}));
  EXPECT_TRUE(tokenizer.is_special(2));
  EXPECT_FALSE(tokenizer.is_special(10));
  EXPECT_EQ(tokenizer.decode(Ids{1, 10, 2}), "ab") << "SentencePiece shows no control symbol";
  EXPECT_EQ(tokenizer.decode(Ids{0, 10}), " \u2047  ab");
  EXPECT_EQ(tokenizer.decode(Ids{0, 10}, /*skip_special=*/true), "ab");
}

TEST(SentencePiece, TheFilesBesideAddTokensBehindThePieces) {
  const std::string config = R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>",
                                 "add_bos_token": true, "add_eos_token": true})";
  const Tokenizer tokenizer = parse(small_model(), config);
  EXPECT_EQ(tokenizer.vocab_size(), 12);
  EXPECT_EQ(tokenizer.pad(), 11);
  EXPECT_EQ(tokenizer.encode("ab<pad>ab"), (Ids{1, 10, 11, 8, 2})) << "no space behind a special token";
  EXPECT_EQ(tokenizer.decode(Ids{1, 10, 11, 2}), "<s> ab<pad></s>");
  EXPECT_EQ(tokenizer.decode(Ids{1, 10, 11, 2}, /*skip_special=*/true), "ab");
  EXPECT_EQ(parse(small_model(), R"({"legacy": true})").encode("ab</s>ab"), (Ids{1, 10, 2, 10}));
}

TEST(SentencePiece, CharactersThatAreNoPiecesMergeAllTheSame) {
  // z is no piece; zz is one, and so is zza.
  const Tokenizer tokenizer = parse(small_model(piece("zz", -0.5F) + piece("zza", -0.25F)));
  EXPECT_EQ(tokenizer.encode("zza", kPlain), (Ids{3, 12}));
  EXPECT_EQ(tokenizer.encode("zzz", kPlain), (Ids{3, 11, 0}));
}

TEST(SentencePiece, BytesThatAreNoTextAreReplacementCharacters) {
  const Tokenizer tokenizer = parse(small_model(piece("\uFFFD", -4)));
  EXPECT_EQ(tokenizer.encode("a\xFF\xE2\x96", kPlain), (Ids{3, 4, 11, 11, 11}));
}

TEST(SentencePiece, ATextOfAMillionWordsWithoutSpacesStaysAWord) {
  // A piece with a space inside: words must not be merged one by one.
  const Tokenizer tokenizer = parse(small_model(piece("b\u2581", -0.5F) + piece("ab\u2581ab", -0.25F)));
  EXPECT_EQ(tokenizer.encode("ab ab", kPlain), (Ids{3, 4, 11, 8}));
}

// The message of the error of this type that a model gives.
template <typename Expected>
std::string refusal(const std::string& model) {
  return test::message_of<Expected>([&] { parse(model); });
}

TEST(SentencePiece, DamagedModelsAreNamed) {
  const auto damaged = [](const std::string& model, const char* expected) {
    const std::string message = refusal<FormatError>(model);
    EXPECT_NE(message.find(expected), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_EQ(message.rfind("dir/tokenizer.model: ", 0), 0U) << message;
  };
  damaged("", "empty");
  damaged(std::string("\x7F"
                      "ELF\0\0",
                      6),
          "no tokenizer");
  damaged("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS");
  damaged("GGUF\3", "GGUF");
  damaged(small_model().substr(0, 60), "cut short");
  damaged(small_model() + "\x0A\xFF\xFF\xFF\xFF\x0F", "cut short");
  damaged(trainer(kModelType, kBpe), "has 0 pieces");
  damaged(small_model(piece("")), "piece 11");
  damaged(small_model(piece(std::string(600, 'x'))), "from 1 to 512 bytes");
  damaged(small_model(piece("\xFF")), "piece 11 (\"?\")");
  damaged(small_model(piece(std::string("x\0", 2))), "zero byte");
  damaged(small_model(piece("ab")), "piece 11 (\"ab\") is piece 8 again");
  damaged(small_model(piece("x", std::nanf(""))), "score");
  damaged(small_model(piece("x", std::numeric_limits<float>::infinity())), "score");
  damaged(small_model(piece("x", 0, kUnknown)), "second unknown");
  damaged(piece("a") + trainer(kModelType, kBpe), "no unknown token");
  damaged(small_model(piece("<0x0A>", 0, kByte)), "does not fall back");
  damaged(small_model(piece("<0x0a>", 0, kByte)) + trainer(kByteFallback, 1), "not named");
  damaged(small_model() + trainer(kByteFallback, 1), "lacks <0x00>");
  damaged(small_model(piece("x", 0, 7)), "unknown kind 7");
  damaged(small_model() + trainer(kModelType, 9), "unknown kind 9");
  damaged(small_model() + bytes(3, bytes(2, "\xFF\xFF\xFF\x0F....")), "table of normalisations");
  damaged(small_model() + bytes(2, bytes(44, std::string(300, 'x'))), "unk_surface");
}

TEST(SentencePiece, WhatIsNotSupportedIsNamed) {
  EXPECT_NE(refusal<UnsupportedError>(small_model() + trainer(kModelType, 3)).find("words"), std::string::npos);
  EXPECT_NE(refusal<UnsupportedError>(small_model() + trainer(kModelType, 4)).find("characters"), std::string::npos);
  EXPECT_NE(refusal<UnsupportedError>(small_model() + bytes(5, bytes(2, "x"))).find("denormalisations"),
            std::string::npos);
}

TEST(SentencePiece, EveryPieceOfAModelAsAFileIsATokenizerOrASentence) {
  const std::string whole = small_model(piece("<0x0A>", 0, kByte) + piece("d\u2581", -1, kUnused)) +
                            trainer(kByteFallback, 0) + bytes(3, bytes(2, "1234567890"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    try {
      parse(whole.substr(0, size)).encode("ab cd", kPlain);
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

// Each of 1,000 pieces a, aa, aaa ... is the sum of two others in all its places.
TEST(SentencePiece, PiecesThatAreSumsOfEachOtherAreMergedOrRefusedSoon) {
  std::string pieces;
  for (std::size_t n = 2; n <= 500; ++n) {
    pieces += piece(std::string(n, 'a'), -static_cast<float>(n));
  }
  const Tokenizer tokenizer = parse(small_model(pieces));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(std::string(100'000, 'a'), kPlain)), std::string(100'000, 'a'));
}

TEST(SentencePiece, AUnigramModelKeepsItsBestPathOverALongText) {
  // The score of a path is a float: without the reference's way of beginning anew it would stand still.
  const std::string model = piece("<unk>", 0, kUnknown) + piece("\u2581", -3) + piece("a", -900) + piece("b", -2) +
                            piece("aa", -1'700) + trainer(kModelType, kUnigram) +
                            normalizer(kRemoveExtraWhitespaces, 0);
  const Ids ids = parse(model).encode(std::string(200'000, 'a'), kPlain);
  EXPECT_EQ(ids.size(), 100'001U);
}

}  // namespace
}  // namespace caravan::tokenizer

#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "caravan/tokenizer/llama_tokens.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/support/scratch.h"

namespace caravan::tokenizer {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr EncodeOptions kPlain = {.add_special = false, .plain = true};

// Ranks 0 to 255.
std::string every_byte() {
  constexpr const char* kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string lines;
  for (int byte = 0; byte < 256; ++byte) {
    lines += {kLetters[byte >> 2], kLetters[(byte & 3) << 4], '=', '=', ' '};
    lines += std::to_string(byte) + "\n";
  }
  return lines;
}

Tokenizer parse(const std::string& file, const std::string& config = "") {
  return Tokenizer::parse(file, "dir/tokenizer.model", config);
}

const std::string kWords = "YWI= 256\nYWJj 257\nYmM= 258\n";  // ab, abc, bc

TEST(Tiktoken, MergesByRankAndTakesAWholeWordFirst) {
  const Tokenizer tokenizer = parse(every_byte() + kWords);
  EXPECT_EQ(tokenizer.encode("abc", kPlain), Ids{257});
  EXPECT_EQ(tokenizer.encode("abcd", kPlain), (Ids{257, 'd'}));
  EXPECT_EQ(tokenizer.encode("bcab", kPlain), (Ids{258, 256}));
  EXPECT_EQ(tokenizer.vocab_size(), 259 + 256);
  EXPECT_EQ(tokenizer.bytes(257), "abc");
  EXPECT_EQ(tokenizer.decode(Ids{257, 0xC3}), "abc\uFFFD");
}

TEST(Tiktoken, LinesMayStandInAnyOrderAndEndAsOnWindows) {
  const Tokenizer tokenizer = parse("YmM= 258\r\nYWJj 257\r\n\r\nYWI= 256\r\n" + every_byte());
  EXPECT_EQ(tokenizer.encode("abcbc", kPlain), (Ids{257, 258}));
}

TEST(Tiktoken, TheSpecialTokensOfLlama3StandBehindTheRanks) {
  const Tokenizer tokenizer = parse(every_byte());
  EXPECT_EQ(tokenizer.bos(), 256);
  EXPECT_EQ(tokenizer.eos(), 257);
  EXPECT_EQ(tokenizer.pad(), 260);
  EXPECT_EQ(tokenizer.id_of("<|eot_id|>"), 265);
  EXPECT_EQ(tokenizer.id_of("<|reserved_special_token_2|>"), 268);
  EXPECT_EQ(tokenizer.id_of("<|reserved_special_token_245|>"), 511);
  EXPECT_EQ(tokenizer.encode("a<|eot_id|>"), (Ids{256, 'a', 265}));
  EXPECT_EQ(tokenizer.encode("<|eot_id|>", kPlain).size(), 10U);
  EXPECT_EQ(tokenizer.encode_document("a"), (Ids{256, 'a', 257}));
  EXPECT_EQ(tokenizer.decode(Ids{256, 'a', 257}), "<|begin_of_text|>a<|end_of_text|>");
  EXPECT_EQ(tokenizer.decode(Ids{256, 'a', 257}, /*skip_special=*/true), "a");
  EXPECT_EQ(llama3_special_tokens().size(), 256U);
}

TEST(Tiktoken, TheSpecialTokensOfLlama4AreThoseOfItsCode) {
  const std::vector<std::string> names = llama4_special_tokens();
  ASSERT_EQ(names.size(), 2048U);
  // Of models/llama4/tokenizer.py: the comments there give these ids, behind 200,000 ranks.
  EXPECT_EQ(names[5], "<|header_start|>");
  EXPECT_EQ(names[80], "<|image_start|>");
  EXPECT_EQ(names[1134], "<|reasoning_reserved_special_token_0|>");
  EXPECT_EQ(names[1143], "<|reasoning_thinking_end|>");
  EXPECT_EQ(names[1144], "<|reserved_special_token_0|>");
}

TEST(Tiktoken, TokenizerConfigNamesWhatStandsBehindTheRanks) {
  const std::string config = R"({"added_tokens_decoder": {"256": {"content": "<a>", "special": true},
      "258": {"content": "<b>", "special": true}}, "bos_token": "<b>", "eos_token": "<a>", "add_eos_token": true})";
  const Tokenizer tokenizer = parse(every_byte(), config);
  EXPECT_EQ(tokenizer.vocab_size(), 259);
  EXPECT_EQ(tokenizer.encode("x<a>"), (Ids{258, 'x', 256, 256}));
  EXPECT_EQ(tokenizer.id_of("<|reserved_token_257|>"), 257);
  EXPECT_EQ(tokenizer.id_of("<|eot_id|>"), std::nullopt);
}

TEST(Tiktoken, DamagedFilesAreNamed) {
  const auto damaged = [](const std::string& file, const char* expected, const std::string& config = "") {
    const std::string message = test::message_of<FormatError>([&] { parse(file, config); });
    EXPECT_NE(message.find(expected), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  };
  const std::string bytes = every_byte();
  damaged(bytes + "Y!I= 256\n", "line 257 is not a token");
  damaged(bytes + "YWI 256\n", "line 257");
  damaged(bytes + "YWJ= 256\n", "line 257");
  damaged(bytes + "YWI=\n", "line 257");
  damaged(bytes + "YWI= x\n", "line 257");
  damaged(bytes + "YWI= -1\n", "line 257");
  damaged(bytes + "YWI= 4194304\n", "line 257");
  damaged(bytes + "YWI= 99999999999999999999\n", "line 257");
  damaged(bytes + " 256\n", "line 257");
  damaged(bytes + "YWI= 256 7\n", "line 257");
  damaged(bytes + "YWI= 255\n", "has the rank 255 of another");
  damaged(bytes + "YQ== 256\n", "has the token of rank 97 again");
  damaged(bytes + "YWI= 256\nYWI= 257\n", "rank 256 and 257 are the same");
  damaged(bytes + "YWI= 300\n", "257 tokens, but none of rank 256");
  damaged(bytes.substr(0, bytes.size() - 9), "0xFF");
  damaged(bytes + std::string(1500, 'A') + " 256\n", "more than 1,024 bytes");
  damaged(bytes, "which is no token of", R"({"bos_token": "<none>"})");
  damaged(bytes, "far behind", R"({"added_tokens_decoder": {"1000000": {"content": "<a>"}}})");
  damaged(bytes, "no id from 0", R"({"added_tokens_decoder": {"-1": {"content": "<a>"}}})");
  damaged(bytes, "another id already",
          R"({"added_tokens_decoder": {"256": {"content": "a"}, "257": {"content": "a"}}})");
}

}  // namespace
}  // namespace caravan::tokenizer

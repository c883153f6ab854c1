// Tokenizer files that are broken or mean harm: each is refused in one sentence, within a second of the processor and
// 64 MiB, however large it claims to be.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/tokenizer/tokenizer.h"
#include "tests/support/cost.h"
#include "tests/tokenizer/piece_model.h"

namespace caravan::tokenizer {
namespace {

constexpr int kMany = 50'000;

std::string repeated(const std::string& text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) {
    result += text;
  }
  return result;
}

// A tokenizer.json whose parts are JSON texts; `vocab` and `merges` are what stands between the brackets.
struct File {
  std::string vocab = R"("a": 0, "b": 1, "ab": 2)";
  std::string merges = R"("a b")";
  std::string model = "";  // further members, with a comma in front
  std::string normalizer = "null";
  std::string pre_tokenizer = R"({"type": "ByteLevel", "add_prefix_space": false})";
  std::string post_processor = "null";
  std::string added = "";

  std::string text() const {
    return R"({"added_tokens": [)" + added + R"(], "normalizer": )" + normalizer + R"(, "pre_tokenizer": )" +
           pre_tokenizer + R"(, "post_processor": )" + post_processor +
           R"(, "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {)" + vocab + R"(}, "merges": [)" +
           merges + "]" + model + "}}";
  }
};

// "t0": 10, "t1": 11, ...
std::string many_tokens() {
  std::string vocab = R"("a": 0, "b": 1, "ab": 2)";
  for (int i = 0; i < kMany; ++i) {
    vocab += ", \"t" + std::to_string(i) + "\": " + std::to_string(10 + i);
  }
  return vocab;
}

std::string many_added(int count) {
  std::string added;
  for (int i = 0; i < count; ++i) {
    added += (i > 0 ? ", " : "") + std::string(R"({"id": )") + std::to_string(3 + i) + R"(, "content": "<)" +
             std::to_string(i) + R"(>"})";
  }
  return added;
}

struct Hostile {
  const char* name;
  std::string content;
  const char* expected;   // in the sentence that refuses it
  std::string text = "";  // where the file is a tokenizer, the text that it must not be given
};

std::vector<Hostile> hostile_json() {
  const std::string step = R"({"type": "Split", "pattern": {"Regex": "PATTERN"}, "behavior": "Isolated"})";
  const auto with_pattern = [&](const std::string& pattern) {
    std::string split = step;
    split.replace(split.find("PATTERN"), 7, pattern);
    return File{.pre_tokenizer = R"({"type": "Sequence", "pretokenizers": [)" + split +
                                 R"(, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})"}
        .text();
  };
  std::string no_vocabulary = File{}.text();
  no_vocabulary.replace(no_vocabulary.find("\"vocab\""), 7, "\"words\"");
  return {
      {"no vocabulary", no_vocabulary, "the model has no vocab"},
      {"no merges", R"({"pre_tokenizer": null, "model": {"vocab": {"a": 0}}})", "no list \"merges\""},
      {"an id twice", File{.vocab = many_tokens() + R"(, "z": 17)"}.text(), "has the id 17 of another"},
      {"a token twice", File{.vocab = many_tokens() + R"(, "t5": 99999)"}.text(), "twice"},
      {"an id beyond every table", File{.vocab = R"("a": 4194304)"}.text(), "the id of the token \"a\""},
      {"an id beyond 64 bits", File{.vocab = R"("a": 99999999999999999999)"}.text(), "the id of the token \"a\""},
      {"an unknown half", File{.merges = repeated(R"("a b", )", kMany) + R"("a q")"}.text(), "names \"q\""},
      {"an unknown sum", File{.merges = R"("a b", "b a")"}.text(), "names \"ba\""},
      {"a merge that makes its own half", File{.merges = R"(["ab", ""])"}.text(), "empty half"},
      {"a merge of nothing", File{.merges = R"(["", ""])"}.text(), "empty half"},
      {"merges of merges of merges", File{.merges = R"("a b", "ab ab", "abab abab")"}.text(), "names \"abab\""},
      {"objects inside each other", repeated("{\"a\": ", 1'000'000), "levels"},
      {"steps inside each other",
       File{.pre_tokenizer = repeated(R"({"type": "Sequence", "pretokenizers": [)", 70) + repeated("]}", 70)}.text(),
       "levels"},
      {"too many steps",
       File{.normalizer = R"({"type": "Sequence", "normalizers": [{"type": "NFC"})" +
                          repeated(R"(, {"type": "NFC"})", kMany) + "]}"}
           .text(),
       "too many steps"},
      {"too many added tokens", File{.added = many_added(100'001)}.text(), "too many added tokens"},
      {"an added token of a megabyte",
       File{.added = R"({"id": 3, "content": ")" + std::string(1 << 20, 'x') + "\"}"}.text(), "too long"},
      {"a template of a million ids",
       File{.post_processor = R"({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}},
            {"SpecialToken": {"id": "x"}}], "special_tokens": {"x": {"ids": [0)" +
                              repeated(",0", 1'000'000) + "]}}}"}
           .text(),
       "the template adds too many tokens"},
      {"a pattern too large to compile", with_pattern("((a{1000}){1000}){1000}"), "x.json: "},
      {"a pattern that tries every way", with_pattern("(?:a|aa|aaa)+$"), "", std::string(200'000, 'a') + "b"},
      {"text that grows at every step",
       File{.normalizer =
                R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a"})" +
                repeated(R"(, {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"})", 20) +
                "]}"}
           .text(),
       "makes more than", std::string(100'000, 'a')},
  };
}

std::vector<Hostile> hostile_pieces() {
  using namespace test_model;  // NOLINT(google-build-using-namespace): the language of these tests
  // Every piece is the sum of two others in all its places.
  std::string sums;
  for (int of = 0; of < 8; ++of) {
    for (std::size_t n = 2; n <= 511; ++n) {
      sums += piece(std::string(1, static_cast<char>('e' + of)) + std::string(n - 1, 'a'), -static_cast<float>(n));
      if (of == 0) {
        sums += piece(std::string(n, 'a'), -static_cast<float>(n));
      }
    }
  }
  std::string many;
  for (int i = 0; i < kMany; ++i) {
    many += piece("t" + std::to_string(i), -1);
  }
  return {
      {"no pieces", trainer(kModelType, kBpe), "has 0 pieces"},
      {"a piece twice", small_model(many + piece("t17")), "is piece 28 again"},
      {"no unknown token", many + trainer(kModelType, kBpe), "no unknown token"},
      {"a score that is none", small_model(many + piece("x", std::nanf(""))), "score"},
      {"a length beyond the file", small_model(many) + "\x0A\xFF\xFF\xFF\xFF\x0F", "cut short"},
      {"a table of normalisations that points nowhere",
       small_model() + bytes(3, bytes(2, std::string("\x00\x04\x00\x00", 4) + std::string(1024, '\xFF') + "x")), "",
       "ab cd"},
      {"bytes without their pieces", small_model(many) + trainer(kByteFallback, 1), "lacks <0x00>"},
      {"pieces that are sums in every way", small_model(sums), "", std::string(100'000, 'a')},
  };
}

std::vector<Hostile> hostile_ranks() {
  std::string bytes;
  constexpr const char* kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int byte = 0; byte < 256; ++byte) {
    bytes += {kLetters[byte >> 2], kLetters[(byte & 3) << 4], '=', '=', ' '};
    bytes += std::to_string(byte) + "\n";
  }
  return {
      {"a rank far away", bytes + "YWI= 4194303\n", "none of rank 256"},
      {"a rank beyond every table", bytes + "YWI= 4194304\n", "line 257"},
      {"a rank twice", bytes + "YWI= 255\n", "has the rank 255 of another"},
      {"a token twice", bytes + "YWI= 256\nYWI= 257\n", "are the same"},
      {"a missing byte", bytes.substr(0, bytes.size() - 9), "0xFF"},
      {"a line of eight megabytes", bytes + std::string(1 << 23, 'A') + " 256\n", "bytes"},
      {"a million empty lines, then no token", bytes + std::string(1'000'000, '\n') + "=\n", "line 1,000,257"},
  };
}

TEST(HostileFiles, AreRefusedInASentenceWithinASecondAnd64MiB) {
  std::vector<Hostile> all = hostile_json();
  for (const auto& more : {hostile_pieces(), hostile_ranks()}) {
    all.insert(all.end(), more.begin(), more.end());
  }
  for (const Hostile& one : all) {
    const std::function<std::string()> work = [&]() -> std::string {
      try {
        const Tokenizer tokenizer = Tokenizer::parse(one.content, "x.json");
        if (one.text.empty()) {
          return "a tokenizer";
        }
        return "x.json: ids: " + std::to_string(tokenizer.encode(one.text).size() > 0);
      } catch (const InputError& error) {
        return std::string("x.json: the text: ") + error.what();
      } catch (const Error& error) {
        return error.what();
      }
    };
    const test::Cost idle = test::cost_of([] { return std::string("idle"); });
    const test::Cost cost = test::cost_of(work);
    EXPECT_TRUE(cost.outcome.starts_with("x.json: ")) << one.name << ": " << cost.outcome;
    EXPECT_NE(cost.outcome.find(one.expected), std::string::npos) << one.name << ": " << cost.outcome;
    EXPECT_EQ(cost.outcome.find('\n'), std::string::npos) << one.name << ": " << cost.outcome;
    if (!test::kSanitized) {
      EXPECT_LE(cost.seconds, 1.0) << one.name;
      EXPECT_LE(cost.peak_bytes - idle.peak_bytes, std::int64_t{64} << 20) << one.name;
    }
  }
}

}  // namespace
}  // namespace caravan::tokenizer

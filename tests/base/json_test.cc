#include "caravan/base/json.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan {
namespace {

std::string refusal(std::string_view text, const JsonLimits& limits = {}) {
  return test::message_of<FormatError>([&] { parse_json(text, "x.json", limits); });
}

void expect_refused(std::string_view text, const std::string& part, const JsonLimits& limits = {}) {
  const std::string message = refusal(text, limits);
  EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" expected in: " << message;
  EXPECT_EQ(message.rfind("x.json: ", 0), 0U) << message;
}

TEST(Json, ReadsEveryKindOfValue) {
  const Json json = parse_json(
      R"( {"z": [1, -2, 2.5, 1e3, true, false, null, "s\u00e9\n"], "a": {}, "e": [], "big": 18446744073709551615,
           "low": -9223372036854775808} )",
      "x.json");
  EXPECT_EQ(json["z"].size(), 8U);
  EXPECT_EQ(json["z"][0], 1);
  EXPECT_EQ(json["z"][1], -2);
  EXPECT_EQ(json["z"][2], 2.5);
  EXPECT_EQ(json["z"][3], 1000.0);
  EXPECT_EQ(json["z"][4], true);
  EXPECT_TRUE(json["z"][6].is_null());
  EXPECT_EQ(json["z"][7], "s\xc3\xa9\n");
  EXPECT_TRUE(json["a"].is_object());
  EXPECT_TRUE(json["e"].is_array());
  EXPECT_EQ(json["big"].get<std::uint64_t>(), 18446744073709551615U);
  EXPECT_EQ(json["low"].get<std::int64_t>(), std::numeric_limits<std::int64_t>::min());
}

TEST(Json, KeepsTheOrderOfKeys) {
  EXPECT_EQ(parse_json(R"({"z":1,"a":{"y":2,"b":3},"m":[{"q":1,"c":2}]})", "x.json").dump(),
            R"({"z":1,"a":{"y":2,"b":3},"m":[{"q":1,"c":2}]})");
}

TEST(Json, ReadsScalarDocuments) {
  EXPECT_EQ(parse_json("7", "x.json"), 7);
  EXPECT_EQ(parse_json(" \"a\" ", "x.json"), "a");
  EXPECT_TRUE(parse_json("null", "x.json").is_null());
}

TEST(Json, RefusesWhatIsNotOneDocument) {
  for (const char* text : {"",         "   ",       "{",           "[1,",           "[1,]",
                           "{\"a\":}", "{\"a\" 1}", "{a:1}",       "'a'",           "nul",
                           "01",       "1.",        "+1",          "NaN",           "Infinity",
                           "\"open",   "\"\\x\"",   "\"\\ud800\"", "\"tab\there\"", "{} {}",
                           "1 2",      "[] x",      "// c\n1",     "[1 /* c */]",   "]",
                           "}",        "[}",        "{\"a\":1]"}) {
    EXPECT_NE(refusal(text).find("not valid JSON at byte "), std::string::npos) << text << " -> " << refusal(text);
  }
}

TEST(Json, NamesTheByteOfAnError) {
  expect_refused(R"({"a": 1, "b": ?})", "at byte 15");
  expect_refused("[1, 2] x", "at byte 8");
}

TEST(Json, RefusesZeroBytesWhereverTheyStand) {
  using namespace std::string_view_literals;
  expect_refused("{}\0"sv, "at byte 3: a zero byte");
  expect_refused("{}\0garbage"sv, "a zero byte");
  expect_refused("{\"a\0b\":1}"sv, "a zero byte");
  expect_refused("\0"sv, "a zero byte");
}

TEST(Json, RefusesInvalidUtf8) {
  for (const char* text :
       {"\"\xff\"", "\"\xc3\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf5\x80\x80\x80\"", "{\"\xe2\x82\": 1}"}) {
    EXPECT_NE(refusal(text).find("UTF-8"), std::string::npos) << refusal(text);
  }
  EXPECT_EQ(parse_json("\"\xf0\x9f\x90\xab\"", "x.json"), "\xf0\x9f\x90\xab");
}

TEST(Json, RefusesNumbersBeyondDouble) {
  expect_refused("[1e999]", "number overflow");
}

TEST(Json, RefusesRepeatedKeysAndNamesThePlace) {
  expect_refused(R"({"a":1,"b":2,"a":3})", "the key \"a\" stands twice in one JSON object, again at byte 16");
  expect_refused(R"([{"x":{"k":1,"k":1}}])", "\"k\"");
  expect_refused(R"({"a":1,"\u0061":2})", "\"a\"");  // the same key, spelt otherwise
  EXPECT_NO_THROW(parse_json(R"({"a":{"a":1},"b":{"a":1}})", "x.json"));
}

TEST(Json, LimitsBytes) {
  EXPECT_NO_THROW(parse_json("[1,2]", "x.json", {.max_bytes = 5}));
  expect_refused("[1,2]", "5 bytes of JSON, but at most 4", {.max_bytes = 4});
}

TEST(Json, LimitsDepth) {
  EXPECT_NO_THROW(parse_json(R"([{"a":[]}])", "x.json", {.max_depth = 3}));
  expect_refused(R"([{"a":[[]]}])", "deeper than 3 levels at byte 8", {.max_depth = 3});
  expect_refused(std::string(1000000, '['), "deeper than 64 levels at byte 65");
}

TEST(Json, LimitsTheNumberOfValues) {
  EXPECT_NO_THROW(parse_json(R"([1,{"a":2}])", "x.json", {.max_values = 4}));
  expect_refused(R"([1,{"a":2}])", "more than 3 JSON values", {.max_values = 3});
}

TEST(Json, DeepNestingNeedsNoStack) {
  constexpr std::size_t kDepth = 300000;
  const std::string text = std::string(kDepth, '[') + std::string(kDepth, ']');
  const Json json = parse_json(text, "x.json", {.max_depth = 1 << 20});
  EXPECT_TRUE(json.is_array());
}

TEST(Json, MessagesStayShortAndPrintable) {
  const std::string message = refusal("[\"" + std::string(100000, 'k') + "\x01\"]");
  EXPECT_LT(message.size(), 400U);
  for (const char c : refusal("[\"\x1b[31m\xff\"]")) {
    EXPECT_TRUE(c >= 0x20 && c < 0x7f);
  }
  EXPECT_LT(refusal("{\"" + std::string(100000, 'k') + "\":1,\"" + std::string(100000, 'k') + "\":1}").size(), 400U);
}

// A search through all keys for every key would compare 5e9 strings, half a minute on a fast machine; this takes a
// tenth of a second.
TEST(Json, ManyKeysAreNotQuadratic) {
  std::string text = "{";
  for (int i = 0; i < 100000; ++i) {
    text += i == 0 ? "\"model.layers." : ",\"model.layers.";
    text += std::to_string(i);
    text += "\":1";
  }
  text += "}";
  const auto start = std::chrono::steady_clock::now();
  const Json json = parse_json(text, "x.json");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(15));
  EXPECT_EQ(json.size(), 100000U);
  EXPECT_EQ(std::prev(json.end()).key(), "model.layers.99999");
}

}  // namespace
}  // namespace caravan

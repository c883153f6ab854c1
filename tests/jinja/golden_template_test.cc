// The language in pieces, and characters of all planes through the methods of strings: what jinja2 gives
// (tests/golden/chat).
#include <gtest/gtest.h>
#include <zlib.h>

#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/jinja/template.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::jinja {
namespace {

const std::string kFolder = test::source_folder().string() + "/tests/golden/chat/";

Json golden(const std::string& name) {
  return parse_json(test::read_file(kFolder + name), name);
}

// 26 July 2024, 15:04:05, a Friday: the goldens' moment.
RenderOptions at_golden_time() {
  RenderOptions options;
  options.now.emplace();
  options.now->tm_year = 124;
  options.now->tm_mon = 6;
  options.now->tm_mday = 26;
  options.now->tm_hour = 15;
  options.now->tm_min = 4;
  options.now->tm_sec = 5;
  options.now->tm_wday = 5;
  options.now->tm_yday = 207;
  return options;
}

TEST(GoldenTemplates, EveryPieceOfTheLanguageGivesJinja2sTextOrAnError) {
  const Json file = golden("pieces.json");
  int texts = 0;
  int errors = 0;
  for (const Json& piece : file.at("pieces")) {
    const std::string source = piece.at("template").get<std::string>();
    const auto render = [&] { return Template::parse(source, "piece").render(file.at("variables"), at_golden_time()); };
    if (piece.contains("text")) {
      std::string text;
      EXPECT_NO_THROW(text = render()) << source;
      EXPECT_EQ(text, piece.at("text").get<std::string>()) << source;
      ++texts;
      continue;
    }
    const std::string message = test::message_of<Error>(render);
    EXPECT_TRUE(message.starts_with("piece, line ")) << source << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    if (piece.contains("refused")) {
      EXPECT_NE(message.find("the template says: " + piece.at("refused").get<std::string>()), std::string::npos);
    }
    ++errors;
  }
  EXPECT_GT(texts, 90);
  EXPECT_GT(errors, 80);
}

std::string utf8(std::uint32_t point) {
  const auto byte = [](std::uint32_t bits) { return static_cast<char>(bits); };
  const auto more = [&](int shift) { return byte(0x80 | (point >> shift & 0x3F)); };
  if (point < 0x80) {
    return {byte(point)};
  }
  if (point < 0x800) {
    return {byte(0xC0 | point >> 6), more(0)};
  }
  if (point < 0x10000) {
    return {byte(0xE0 | point >> 12), more(6), more(0)};
  }
  return {byte(0xF0 | point >> 18), more(12), more(6), more(0)};
}

TEST(GoldenTemplates, CharactersGoThroughTheMethodsOfStringsAsInPython) {
  const Json file = golden("characters.json");
  const Template word = Template::parse(file.at("template").get<std::string>(), "characters");
  std::int64_t characters = 0;
  for (const auto& [name, block] : file.at("blocks").items()) {
    uLong sum = 0;
    for (const Json& range : block.at("ranges")) {
      for (std::uint32_t point = range[0]; point <= range[1].get<std::uint32_t>(); ++point) {
        const std::string c = utf8(point);
        const std::string text = word.render(Json{{"w", "a" + c + "b" + c + " " + c + "Z" + c}});
        sum = crc32(sum, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size()));
        ++characters;
      }
    }
    EXPECT_EQ(sum, block.at("crc32").get<uLong>()) << "characters U+" << name << "000 to U+" << name << "FFF";
  }
  EXPECT_GT(characters, 20'000);
}

}  // namespace
}  // namespace caravan::jinja

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/data/byte_source.h"
#include "caravan/data/line_reader.h"
#include "tests/data/packed.h"
#include "tests/support/scratch.h"

namespace caravan::data {
namespace {

using test::gzip;
using test::message_of;
using test::ScratchDirectory;
using test::write_file;
using test::zstd;

std::vector<std::string> lines_of(const std::filesystem::path& path, std::int64_t most = kMaxLineBytes) {
  LineReader reader(path, most);
  std::vector<std::string> lines;
  for (std::string line; reader.next(line);) {
    lines.push_back(line);
  }
  EXPECT_EQ(reader.line_number(), static_cast<std::int64_t>(lines.size()));
  return lines;
}

// Lines of all lengths, some longer than the reader's buffer, that pack badly.
std::string long_text() {
  std::mt19937 random(1);
  std::string text;
  for (int i = 0; i < 400; ++i) {
    const std::size_t length = i == 7 ? 700'000 : random() % 3000;
    for (std::size_t j = 0; j < length; ++j) {
      text += static_cast<char>(' ' + random() % 90);
    }
    text += '\n';
  }
  return text;
}

TEST(LineReader, SplitsAtBothKindsOfLineEnds) {
  const ScratchDirectory scratch;
  write_file(scratch.path() / "a", "one\r\n\ntwo\nlast");
  EXPECT_EQ(lines_of(scratch.path() / "a"), (std::vector<std::string>{"one", "", "two", "last"}));
  write_file(scratch.path() / "b", "one\n");
  EXPECT_EQ(lines_of(scratch.path() / "b"), std::vector<std::string>{"one"});
  write_file(scratch.path() / "c", "");
  EXPECT_EQ(lines_of(scratch.path() / "c"), std::vector<std::string>{});
}

TEST(ByteSource, UnpacksGzipAndZstdInOneOrSeveralPieces) {
  const ScratchDirectory scratch;
  const std::string text = long_text();
  const std::string head = text.substr(0, 12345);
  const std::string rest = text.substr(12345);
  write_file(scratch.path() / "plain", text);
  write_file(scratch.path() / "a.gz", gzip(text));
  write_file(scratch.path() / "b.gz", gzip(head) + gzip("") + gzip(rest));
  write_file(scratch.path() / "c.gz", gzip(text) + std::string(512, '\0'));  // as tapes have it
  write_file(scratch.path() / "a.zst", zstd(text));
  write_file(scratch.path() / "b.zst", zstd(head) + zstd("") + zstd(rest));
  // A skippable frame of three bytes (RFC 8878, 3.1.2).
  write_file(scratch.path() / "c.zst", std::string("\x50\x2a\x4d\x18\x03\0\0\0abc", 11) + zstd(text));
  write_file(scratch.path() / "no_ending", gzip(text));
  for (const char* name : {"plain", "a.gz", "b.gz", "c.gz", "a.zst", "b.zst", "c.zst", "no_ending"}) {
    EXPECT_EQ(read_text(scratch.path() / name), text) << name;
    EXPECT_EQ(lines_of(scratch.path() / name), lines_of(scratch.path() / "plain")) << name;
  }
}

TEST(ByteSource, RefusesEveryTruncationWithFileAndLine) {
  const ScratchDirectory scratch;
  const std::string text = "first line\nsecond line\nthird line\n";
  for (const bool is_gzip : {true, false}) {
    const std::string packed = is_gzip ? gzip(text) : zstd(text);
    const std::filesystem::path path = scratch.path() / (is_gzip ? "a.gz" : "a.zst");
    for (std::size_t length = 0; length < packed.size(); ++length) {
      write_file(path, packed.substr(0, length));
      const std::string message = message_of<FormatError>([&] { read_text(path); });
      EXPECT_TRUE(message.starts_with(path.string() + ":")) << length << " " << message;
      EXPECT_FALSE(message_of<FormatError>([&] { lines_of(path); }).empty()) << length;
    }
  }
}

TEST(ByteSource, NoticesDamageAndSaysWhere) {
  const ScratchDirectory scratch;
  std::string text;
  for (int i = 0; i < 5000; ++i) {
    text += std::to_string(i * 7919) + "\n";
  }
  std::string packed = gzip(text);
  packed[packed.size() - 6] ^= 1;  // the checksum: everything before it was given out
  write_file(scratch.path() / "a.gz", packed);
  const std::string gz = message_of<FormatError>([&] { lines_of(scratch.path() / "a.gz"); });
  EXPECT_NE(gz.find("a.gz:5001: the gzip data is damaged before byte"), std::string::npos) << gz;
  write_file(scratch.path() / "b.gz", gzip("a\nb\n") + "rest");
  const std::string rest = message_of<FormatError>([&] { read_text(scratch.path() / "b.gz"); });
  EXPECT_NE(rest.find("4 bytes that are no gzip data follow"), std::string::npos) << rest;
  packed = zstd(text);
  packed[packed.size() / 2] ^= 0x55;
  write_file(scratch.path() / "a.zst", packed);
  const std::string zst = message_of<FormatError>([&] { lines_of(scratch.path() / "a.zst"); });
  EXPECT_NE(zst.find("a.zst:"), std::string::npos) << zst;
  EXPECT_NE(zst.find("the zstd data is damaged"), std::string::npos) << zst;
  write_file(scratch.path() / "c.gz", "<html>not found</html>");
  const std::string other = message_of<FormatError>([&] { read_text(scratch.path() / "c.gz"); });
  EXPECT_NE(other.find("c.gz:1: the name ends in .gz, but"), std::string::npos) << other;
}

TEST(LineReader, LimitsLinesAndTexts) {
  const ScratchDirectory scratch;
  const std::filesystem::path path = scratch.path() / "a";
  write_file(path, "12345\n123456\n");
  EXPECT_EQ(lines_of(path, 6).size(), 2U);
  const std::string line = message_of<FormatError>([&] { lines_of(path, 5); });
  EXPECT_NE(line.find("a:2: the line is longer than 5 bytes"), std::string::npos) << line;
  EXPECT_EQ(read_text(path, 13).size(), 13U);
  EXPECT_NE(message_of<FormatError>([&] { read_text(path, 12); }).find("longer than 12 bytes"), std::string::npos);
}

TEST(LineReader, StopsABombAtTheLimit) {
  const ScratchDirectory scratch;
  const std::filesystem::path path = scratch.path() / "bomb.gz";
  write_file(path, gzip(std::string(std::size_t{64} << 20, ' ')));
  EXPECT_NE(message_of<FormatError>([&] { lines_of(path, 1 << 20); }).find(":1: the line is longer"),
            std::string::npos);
  EXPECT_EQ(read_head(path, 1000).size(), 1000U);
}

}  // namespace
}  // namespace caravan::data

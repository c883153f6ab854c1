#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>

#include "caravan/base/error.h"
#include "caravan/checkpoint/gguf.h"
#include "tests/checkpoint/gguf_cases.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::checkpoint {
namespace {

const std::filesystem::path kGolden = test::source_folder() / "tests/golden/gguf";

// The file in a heap copy of exact size, so that a sanitizer sees every step beyond it; the header's values are views.
struct Parsed {
  explicit Parsed(const std::string& file) : copy(new std::byte[file.size()]) {
    std::memcpy(copy.get(), file.data(), file.size());
    header = parse_gguf_header({copy.get(), file.size()}, static_cast<std::int64_t>(file.size()), "x.gguf");
  }
  std::unique_ptr<std::byte[]> copy;
  GgufHeader header;
};

// The message of the refusal; "" when the file was accepted.
std::string refusal(const std::string& file) {
  return test::message_of<FormatError>([&] { Parsed parsed(file); });
}

// What the reader promises of every file that it accepts: tensors lie in it, aligned and apart, values can be walked.
void expect_true(const Parsed& parsed, std::size_t file_bytes) {
  for (const GgufTensor& tensor : parsed.header.tensors) {
    EXPECT_GE(tensor.begin, 0);
    EXPECT_GT(tensor.bytes, 0);
    EXPECT_LE(tensor.begin + tensor.bytes, static_cast<std::int64_t>(file_bytes));
    EXPECT_EQ(tensor.begin % parsed.header.alignment, 0);
    EXPECT_EQ(tensor.rows() * tensor.columns() / tensor.type->elements * tensor.type->bytes, tensor.bytes);
  }
  for (const std::string& key : parsed.header.metadata.keys()) {
    const GgufValue& value = *parsed.header.metadata.find(key);
    if (value.type == GgufType::kArray && value.element == GgufType::kText) {
      EXPECT_EQ(static_cast<std::int64_t>(parsed.header.metadata.texts(key)->size()), value.count);
    }
  }
}

void expect_refused_or_true(const std::string& file) {
  try {
    expect_true(Parsed(file), file.size());
  } catch (const FormatError&) {
  }
}

TEST(GgufHeader, AcceptsEveryValidFile) {
  for (const ValidCase& valid : valid_gguf()) {
    SCOPED_TRACE(valid.name);
    EXPECT_EQ(refusal(valid.file), "");
    const Parsed parsed(valid.file);
    EXPECT_EQ(parsed.header.tensors.size(), valid.tensors);
    expect_true(parsed, valid.file.size());
  }
}

TEST(GgufHeader, RefusesEveryHostileFileWithASentenceThatNamesTheFault) {
  for (const HostileCase& hostile : hostile_gguf()) {
    SCOPED_TRACE(hostile.name);
    const auto start = std::chrono::steady_clock::now();
    const std::string message = refusal(hostile.file);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
    ASSERT_NE(message, "") << "accepted";
    EXPECT_TRUE(message.starts_with("x.gguf: ")) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 800U) << message;
    for (const std::string& word : hostile.words) {
      EXPECT_NE(message.find(word), std::string::npos) << '"' << word << "\" is not in: " << message;
    }
  }
}

TEST(GgufHeader, RefusesEveryTruncationOfEveryValidFile) {
  for (const ValidCase& valid : valid_gguf()) {
    if (valid.name == "valid_gguf_bytes_behind") {
      continue;  // bytes behind the last tensor may go
    }
    for (std::size_t bytes = 0; bytes < valid.file.size(); ++bytes) {
      EXPECT_NE(refusal(valid.file.substr(0, bytes)), "") << valid.name << " cut to " << bytes;
    }
  }
}

// Every aligned or unaligned field of every file, by brute force: each eight bytes become each boundary value.
TEST(GgufHeader, BelievesNoBoundaryValueAnywhere) {
  std::vector<std::uint64_t> values = {0, 1, 2, 3, 31, 32, 33, 255, 256, 65535, 65536};
  for (int bit = 20; bit < 64; ++bit) {
    values.push_back(std::uint64_t{1} << bit);
    values.push_back((std::uint64_t{1} << bit) - 1);
  }
  values.push_back(~std::uint64_t{0});
  int tried = 0;
  for (const ValidCase& valid : valid_gguf()) {
    for (std::size_t at = 4; at + 8 <= valid.file.size() && at < 400; ++at) {
      for (const std::uint64_t value : values) {
        std::string file = valid.file;
        std::memcpy(file.data() + at, &value, sizeof value);
        expect_refused_or_true(file);
        ++tried;
      }
    }
  }
  EXPECT_GT(tried, 100'000);
}

TEST(GgufHeader, SurvivesRandomDamage) {
  std::mt19937 random(20251125);
  for (const ValidCase& valid : valid_gguf()) {
    for (int trial = 0; trial < 2000; ++trial) {
      std::string file = valid.file;
      for (unsigned flips = 1 + random() % 4; flips > 0; --flips) {
        file[random() % file.size()] ^= static_cast<char>(1U << (random() % 8));
      }
      expect_refused_or_true(file);
    }
  }
}

TEST(GgufHeader, ReadsFromABeginningThatEndsWithTheTable) {
  const std::string file = GgufBytes::head(1, 0).tensor("w", {4}, 0, 0).data(16).str();
  const auto bytes = static_cast<std::int64_t>(file.size());
  const std::size_t table = file.size() - 16;
  EXPECT_EQ(parse_gguf_header(as_bytes(file).first(table), bytes, "x").tensors.size(), 1U);
  EXPECT_THROW(parse_gguf_header(as_bytes(file).first(20), bytes, "x"), FormatError);
}

// A file that asks for the most of everything, and is honest about it: memory stays below the limit all the same.
TEST(GgufHeader, HoldsLittleMemoryWhateverAFileNames) {
  GgufBytes bytes = GgufBytes::head(0, 3);
  for (const char* name : {"a", "b", "c"}) {
    bytes.key(name, 9).u32(8).u64(std::uint64_t{1} << 20);
    for (int i = 0; i < 1 << 20; ++i) {
      bytes.text("");
    }
  }
  const std::string& file = bytes.str();
  struct rusage before {};
  getrusage(RUSAGE_SELF, &before);
  const GgufHeader header = parse_gguf_header(as_bytes(file), static_cast<std::int64_t>(file.size()), "x");
  struct rusage after {};
  getrusage(RUSAGE_SELF, &after);
  EXPECT_EQ(header.metadata.find("c")->count, 1 << 20);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 64 * 1024) << "kilobytes";
  // Beyond the budget the file is refused, not read.
  GgufBytes large = GgufBytes::head(0, 1).key("t", 8).text(std::string(std::size_t{49} << 20, 't'));
  EXPECT_NE(refusal(large.str()).find("metadata that are read"), std::string::npos) << refusal(large.str());
}

TEST(GgufMetadata, GivesEveryTypeOfTheGgufPackage) {
  const GgufFile file = GgufFile::open(kGolden / "types.gguf");
  const GgufMetadata& m = file.metadata();
  EXPECT_EQ(m.integer("value.u8"), 200);
  EXPECT_EQ(m.integer("value.i8"), -100);
  EXPECT_EQ(m.integer("value.u16"), 60000);
  EXPECT_EQ(m.integer("value.i16"), -30000);
  EXPECT_EQ(m.integer("value.u32"), 4000000000);
  EXPECT_EQ(m.integer("value.i32"), -2000000000);
  EXPECT_EQ(m.number("value.f32"), 1e-5);  // as it was written down, not as f32 rounds it
  EXPECT_EQ(m.boolean("value.bool"), true);
  EXPECT_EQ(m.text("value.text"), "na\xc3\xafve \xe2\x96\x81 text");
  EXPECT_EQ(m.integer("value.i64"), -(std::int64_t{1} << 62));
  EXPECT_EQ(m.number("value.f64"), 0.1);
  EXPECT_EQ(*m.texts("array.texts"), (std::vector<std::string_view>{"", "a",
                                                                    "\xe2\x96\x81"
                                                                    "b"}));
  EXPECT_EQ(*m.integers("array.i32"), (std::vector<std::int64_t>{1, -2, 3}));
  EXPECT_EQ(*m.numbers("array.f32"), (std::vector<double>{0.5, -1e-5}));
  EXPECT_EQ(m.integer("not there"), std::nullopt);
  EXPECT_EQ(m.text("general.architecture"), "nothing");
  EXPECT_THROW(static_cast<void>(m.integer("value.u64")), FormatError);  // above 2^63
  EXPECT_EQ(m.number("value.u64"), 0x1p63);                              // rounded
}

TEST(GgufMetadata, NamesKeyAndTypeWhereAnotherKindIsWanted) {
  const GgufFile file = GgufFile::open(kGolden / "types.gguf");
  const GgufMetadata& m = file.metadata();
  const auto says = [](const std::string& message, std::initializer_list<const char*> words) {
    for (const char* word : words) {
      EXPECT_NE(message.find(word), std::string::npos) << message;
    }
  };
  says(test::message_of<FormatError>([&] { static_cast<void>(m.integer("value.text")); }),
       {"value.text", "integer", "text"});
  says(test::message_of<FormatError>([&] { static_cast<void>(m.text("value.u8")); }), {"value.u8", "a text", "u8"});
  says(test::message_of<FormatError>([&] { static_cast<void>(m.boolean("value.u8")); }), {"a bool", "u8"});
  says(test::message_of<FormatError>([&] { static_cast<void>(m.texts("array.i32")); }), {"array.i32", "3 i32"});
  says(test::message_of<FormatError>([&] { static_cast<void>(m.numbers("value.f32")); }), {"value.f32", "array"});
  says(test::message_of<FormatError>([&] { static_cast<void>(m.integers("array.texts")); }), {"array.texts"});
}

TEST(GgufFile, BlocksAreAViewOfTheMapping) {
  quant::BlockMatrix blocks;
  {
    const GgufFile file = GgufFile::open(kGolden / "wide_head_dim.gguf");
    blocks = file.blocks(*file.find("blk.0.attn_q.weight"));
    EXPECT_EQ(file.find("blk.9.attn_q.weight"), nullptr);
  }
  EXPECT_EQ(blocks.rows, 48);
  EXPECT_EQ(blocks.columns, 32);
  EXPECT_EQ(blocks.row_bytes, 128);
  EXPECT_EQ(blocks.bytes.size(), 48U * 128U);
  EXPECT_NE(blocks.bytes[7], blocks.bytes[1000]);  // still mapped
}

TEST(GgufFile, NamesATypeThatCannotBeRead) {
  const test::ScratchDirectory scratch;
  const auto path = scratch.path() / "x.gguf";
  test::write_file(path, GgufBytes::head(1, 0).tensor("w", {32}, 20, 0).data(18).str());
  const GgufFile file = GgufFile::open(path);
  const std::string message = test::message_of<UnsupportedError>([&] { file.blocks(file.header().tensors[0]); });
  EXPECT_NE(message.find("\"w\" is of type IQ4_NL"), std::string::npos) << message;
}

TEST(GgufFile, IsKnownByItsMagicAlone) {
  const test::ScratchDirectory scratch;
  test::write_file(scratch.path() / "a", "GGUF");
  test::write_file(scratch.path() / "b.gguf", "GGU");
  EXPECT_TRUE(is_gguf(scratch.path() / "a"));
  EXPECT_FALSE(is_gguf(scratch.path() / "b.gguf"));
  EXPECT_FALSE(is_gguf(scratch.path()));
  EXPECT_FALSE(is_gguf(scratch.path() / "missing"));
  EXPECT_THROW(GgufFile::open(scratch.path() / "missing"), FileError);
}

// The fuzzer's seeds are this table: `scripts/fuzz --make-corpus` writes them.
TEST(GgufHeader, HasItsCasesInTheCorpusOfTheFuzzer) {
  const std::filesystem::path corpus = test::source_folder() / "tests/fuzz/corpus/gguf";
  const auto expect_same = [&corpus](const std::string& name, const std::string& file) {
    std::ifstream stream(corpus / name, std::ios::binary);
    ASSERT_TRUE(stream) << corpus / name << " is missing";
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(stream), {}), file) << name;
  };
  for (const ValidCase& valid : valid_gguf()) {
    expect_same(valid.name, valid.file);
  }
  for (const HostileCase& hostile : hostile_gguf()) {
    expect_same(hostile.name, hostile.file);
  }
}

}  // namespace
}  // namespace caravan::checkpoint

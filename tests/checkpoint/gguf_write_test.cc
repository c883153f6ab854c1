#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "caravan/checkpoint/gguf.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::checkpoint {
namespace {

using quant::BlockType;
using test::ScratchDirectory;

std::vector<std::byte> bytes_of(std::size_t count, int value) {
  return std::vector<std::byte>(count, std::byte(value));
}

const std::vector<GgufEntry> kMetadata = {{"general.architecture", std::string("llama")},
                                          {"a.u32", std::uint32_t{4000000000}},
                                          {"a.i32", std::int32_t{-7}},
                                          {"a.u64", std::uint64_t{1} << 40},
                                          {"a.f32", 1e-5F},
                                          {"a.bool", true},
                                          {"a.texts", std::vector<std::string>{"", "two words", "\xe2\x96\x81"}},
                                          {"a.i32s", std::vector<std::int32_t>{1, -1}},
                                          {"a.f32s", std::vector<float>{0.5F}}};

TEST(GgufWriter, WritesWhatTheReaderReads) {
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "x.gguf";
  GgufWriter writer(path, kMetadata,
                    {{"v", BlockType::kF32, {3}}, {"m", BlockType::kQ40, {2, 32}}, {"n", BlockType::kBF16, {1, 5}}});
  writer.append(bytes_of(12, 1));
  writer.append(bytes_of(20, 2));  // in pieces
  writer.append(bytes_of(16, 2));
  writer.append(bytes_of(10, 3));
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(GgufFile::open(writer.staged_path()).header().tensors.size(), 3U);  // complete before it is in place
  writer.finish();
  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.header().version, 3U);
  EXPECT_EQ(file.metadata().keys().size(), kMetadata.size());
  EXPECT_EQ(file.metadata().integer("a.u32"), 4000000000);
  EXPECT_EQ(file.metadata().integer("a.i32"), -7);
  EXPECT_EQ(file.metadata().integer("a.u64"), std::int64_t{1} << 40);
  EXPECT_EQ(file.metadata().number("a.f32"), 1e-5);
  EXPECT_EQ(file.metadata().boolean("a.bool"), true);
  EXPECT_EQ(file.metadata().texts("a.texts")->at(1), "two words");
  EXPECT_EQ(file.metadata().integers("a.i32s"), (std::vector<std::int64_t>{1, -1}));
  EXPECT_EQ(file.metadata().numbers("a.f32s"), (std::vector<double>{0.5}));
  EXPECT_EQ(file.find("m")->shape, (std::vector<std::int64_t>{2, 32}));
  EXPECT_EQ(file.blocks(*file.find("m")).bytes[35], std::byte{2});
  EXPECT_EQ(file.blocks(*file.find("n")).bytes[0], std::byte{3});
}

TEST(GgufWriter, CopiesValuesOutOfAnotherFileAsTheyAre) {
  const ScratchDirectory scratch;
  const GgufFile source = GgufFile::open(test::source_folder() / "tests/golden/gguf/types.gguf");
  std::vector<GgufEntry> metadata;
  for (const std::string& key : source.metadata().keys()) {
    metadata.push_back({key, *source.metadata().find(key)});
  }
  GgufWriter(scratch.path() / "x.gguf", metadata, {}).finish();
  const GgufFile copy = GgufFile::open(scratch.path() / "x.gguf");
  ASSERT_EQ(copy.metadata().keys(), source.metadata().keys());
  for (const std::string& key : copy.metadata().keys()) {
    const GgufValue& a = *source.metadata().find(key);
    const GgufValue& b = *copy.metadata().find(key);
    EXPECT_EQ(a.type, b.type) << key;
    EXPECT_EQ(a.count, b.count) << key;
    EXPECT_TRUE(std::ranges::equal(a.bytes, b.bytes)) << key;
  }
}

TEST(GgufWriter, LeavesTheTargetAsItWasUntilEverythingIsThere) {
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "x.gguf";
  test::write_file(path, "before");
  {
    GgufWriter writer(path, {}, {{"v", BlockType::kF32, {3}}, {"w", BlockType::kF32, {1}}});
    writer.append(bytes_of(12, 0));
    EXPECT_THROW(writer.append(bytes_of(5, 0)), FormatError);  // beyond the second
    EXPECT_THROW(writer.finish(), FormatError);
    EXPECT_EQ(test::read_file(path), "before");
  }
  EXPECT_EQ(test::read_file(path), "before");
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(scratch.path())) {
    ++entries;
  }
  EXPECT_EQ(entries, 1U) << "something was left beside the target";
}

TEST(GgufWriter, RefusesWhatReadersRefuse) {
  const ScratchDirectory scratch;
  const auto path = scratch.path() / "x.gguf";
  const auto refusal = [&](const std::vector<GgufEntry>& metadata, const std::vector<GgufTensorPlan>& plan) {
    return test::message_of<FormatError>([&] { GgufWriter(path, metadata, plan).finish(); });
  };
  const auto says = [&](const std::string& message, const char* word) {
    EXPECT_NE(message.find(word), std::string::npos) << message;
  };
  says(refusal({{"", std::uint32_t{1}}}, {}), "no name");
  says(refusal({{"a", std::uint32_t{1}}, {"a", true}}, {}), "twice");
  says(refusal({{"general.alignment", std::uint32_t{8}}}, {}), "writer's own");
  says(refusal({}, {{"w", BlockType::kF32, {1}}, {"w", BlockType::kF32, {1}}}), "twice");
  says(refusal({}, {{std::string(64, 'n'), BlockType::kF32, {1}}}), "63");
  says(refusal({}, {{"w", BlockType::kF32, {}}}), "one to 4");
  says(refusal({}, {{"w", BlockType::kF32, {1, 2, 3, 4, 5}}}), "one to 4");
  says(refusal({}, {{"w", BlockType::kF32, {3, 0}}}), "below 1");
  says(refusal({}, {{"w", BlockType::kQ40, {31}}}), "blocks of 32");
  says(refusal({}, {{"w", BlockType::kF32, {std::int64_t{1} << 40, std::int64_t{1} << 30}}}), "2^62");
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace caravan::checkpoint

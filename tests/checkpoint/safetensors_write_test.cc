#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/checkpoint/safetensors.h"
#include "tests/checkpoint/temporary_directory.h"

namespace caravan::checkpoint {
namespace {

const std::vector<DType> kEveryDType = {DType::kF64,    DType::kF32,  DType::kBF16, DType::kF16, DType::kF8E4M3,
                                        DType::kF8E5M2, DType::kE8M0, DType::kI64,  DType::kI32, DType::kU8};

// Bytes that differ from tensor to tensor and from position to position.
std::vector<std::byte> content(const TensorPlan& tensor) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes()));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] =
        static_cast<std::byte>((i * 131 + tensor.name.size() * 17 + static_cast<unsigned char>(tensor.name[0])) & 0xff);
  }
  return bytes;
}

void write(const std::filesystem::path& target, const std::vector<TensorPlan>& plan) {
  SafetensorsWriter writer(target, plan, {{"format", "pt"}});
  for (const TensorPlan& tensor : plan) {
    writer.append(content(tensor));
  }
  writer.finish();
}

bool holds(std::span<const std::byte> bytes, const TensorPlan& tensor) {
  const std::vector<std::byte> expected = content(tensor);
  return bytes.size() == expected.size() && std::equal(bytes.begin(), bytes.end(), expected.begin());
}

std::string file_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

template <typename Failure>
std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "";
}

TEST(SafetensorsWriter, WritesWhatTheReaderReadsForEveryDType) {
  const TemporaryDirectory directory;
  std::vector<TensorPlan> plan;
  for (const DType dtype : kEveryDType) {
    plan.push_back({std::string("tensor.") + safetensors_name(dtype), dtype, {3, 5}});
  }
  plan.push_back({"scalar", DType::kF32, {}});
  plan.push_back({"nothing", DType::kBF16, {7, 0, 3}});
  plan.push_back({"rank six", DType::kU8, {1, 2, 1, 3, 1, 1}});
  plan.push_back({"\"quoted\" \\ and \xc3\xa9", DType::kU8, {1}});
  write(directory / "all.safetensors", plan);

  const SafetensorsFile file = SafetensorsFile::open(directory / "all.safetensors");
  EXPECT_EQ(file.header().metadata, (std::map<std::string, std::string>{{"format", "pt"}}));
  ASSERT_EQ(file.header().entries.size(), plan.size());
  for (const TensorPlan& tensor : plan) {
    const TensorEntry* entry = file.find(tensor.name);
    ASSERT_NE(entry, nullptr) << tensor.name;
    EXPECT_EQ(entry->dtype, tensor.dtype) << tensor.name;
    EXPECT_EQ(entry->shape, tensor.shape) << tensor.name;
    EXPECT_TRUE(holds(file.bytes(*entry), tensor)) << tensor.name;
  }
  EXPECT_EQ(file.find("absent"), nullptr);
}

TEST(SafetensorsWriter, WritesTheSameFileFromWhatItRead) {
  const TemporaryDirectory directory;
  write(directory / "first.safetensors", {{"b", DType::kF32, {5}}, {"a", DType::kF16, {2, 2}}, {"c", DType::kU8, {3}}});
  const SafetensorsFile file = SafetensorsFile::open(directory / "first.safetensors");
  std::vector<TensorPlan> plan;
  for (const TensorEntry& entry : file.header().entries) {
    plan.push_back({entry.name, *entry.dtype, entry.shape});
  }
  EXPECT_EQ(plan.front().name, "b") << "entries are in the order of the plan";
  SafetensorsWriter writer(directory / "second.safetensors", plan, file.header().metadata);
  for (const TensorEntry& entry : file.header().entries) {
    writer.append(file.bytes(entry));
  }
  writer.finish();
  EXPECT_EQ(file_text(directory / "first.safetensors"), file_text(directory / "second.safetensors"));
}

TEST(SafetensorsWriter, PadsTheHeaderSoThatTheDataIsAlignedWhateverTheNames) {
  const TemporaryDirectory directory;
  for (std::size_t length = 1; length <= 9; ++length) {
    write(directory / "x.safetensors", {{std::string(length, 'n'), DType::kF64, {2}}});
    const SafetensorsFile file = SafetensorsFile::open(directory / "x.safetensors");
    EXPECT_EQ(file.header().data_begin % 8, 0);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.bytes(file.header().entries[0]).data()) % 8, 0U);
  }
}

TEST(SafetensorsWriter, TakesTensorsInPieces) {
  const TemporaryDirectory directory;
  const TensorPlan tensor{"w", DType::kU8, {100}};
  const std::vector<std::byte> bytes = content(tensor);
  SafetensorsWriter writer(directory / "x.safetensors", {tensor});
  for (std::size_t begin = 0; begin < bytes.size(); begin += 7) {
    writer.append(std::span(bytes).subspan(begin, std::min<std::size_t>(7, bytes.size() - begin)));
  }
  writer.finish();
  const SafetensorsFile file = SafetensorsFile::open(directory / "x.safetensors");
  EXPECT_TRUE(holds(file.bytes(*file.find("w")), tensor));
  EXPECT_TRUE(file.header().metadata.empty());
}

TEST(SafetensorsWriter, LeavesTheTargetAsItWasWhenBytesAreMissingOrTooMany) {
  const TemporaryDirectory directory;
  const std::filesystem::path target = directory / "x.safetensors";
  write_text_file(target, "before");
  const std::vector<std::byte> bytes(9);
  {
    SafetensorsWriter writer(target, {{"w", DType::kU8, {8}}});
    EXPECT_NE(message_of<FormatError>([&] { writer.append(bytes); }).find("9 bytes"), std::string::npos);
    writer.append(std::span(bytes).first(7));
    EXPECT_NE(message_of<FormatError>([&] { writer.finish(); }).find("1 bytes"), std::string::npos);
  }
  EXPECT_EQ(file_text(target), "before");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 1) << "something was left behind";
}

TEST(SafetensorsWriter, AsksForSpaceBeforeItWritesAnything) {
  const TemporaryDirectory directory;
  // 2^55 bytes: no disk has them, and nothing wraps.
  const std::vector<TensorPlan> plan = {{"w", DType::kU8, {std::int64_t{1} << 55}}};
  EXPECT_NE(message_of<FileError>([&] { SafetensorsWriter(directory / "x.safetensors", plan); }), "");
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(SafetensorsWriter, RefusesWhatTheReaderWouldRefuse) {
  const TemporaryDirectory directory;
  const std::filesystem::path target = directory / "x.safetensors";
  const std::int64_t huge = std::int64_t{1} << 59;
  std::vector<TensorPlan> sixteen;  // 2^63 bytes together
  for (int i = 0; i < 16; ++i) {
    sixteen.push_back({std::to_string(i), DType::kU8, {huge}});
  }
  const std::vector<std::pair<std::vector<TensorPlan>, std::string>> cases = {
      {{{"w", DType::kU8, {1}}, {"v", DType::kU8, {1}}, {"w", DType::kF32, {1}}}, "\"w\" stands twice"},
      {{{"__metadata__", DType::kU8, {1}}}, "\"__metadata__\" is reserved"},
      {{{"a\nb", DType::kU8, {1}}}, "control character"},
      {{{std::string(4097, 'n'), DType::kU8, {1}}}, "4097"},
      {{{"w\xff", DType::kU8, {1}}}, "UTF-8"},
      {{{"w", DType::kU8, {2, -1}}}, "[2, -1]"},
      {{{"w", DType::kF32, {huge, huge, 0}}}, "wraps"},
      {sixteen, "wraps"}};
  for (const auto& [plan, word] : cases) {
    const std::string message = message_of<FormatError>([&] { SafetensorsWriter writer(target, plan); });
    EXPECT_NE(message.find(word), std::string::npos) << '"' << word << "\" is not in: " << message;
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(SafetensorsWriter, WritesNoMoreTensorsThanTheReaderTakes) {
  const TemporaryDirectory directory;
  std::vector<TensorPlan> plan((1 << 20) + 1, {"", DType::kU8, {0}});
  for (std::size_t i = 0; i < plan.size(); ++i) {
    plan[i].name = std::to_string(i);
  }
  const std::string message =
      message_of<FormatError>([&] { SafetensorsWriter writer(directory / "x.safetensors", plan); });
  EXPECT_NE(message.find("1048577 tensors"), std::string::npos) << message;
}

TEST(ShardPlan, FillsShardsInOrderUpToTheLimit) {
  const auto tensor = [](const char* name, std::int64_t bytes) { return TensorPlan{name, DType::kU8, {bytes}}; };
  const std::vector<TensorPlan> plan = {tensor("a", 4), tensor("b", 6),  tensor("c", 1), tensor("d", 25),
                                        tensor("e", 0), tensor("f", 10), tensor("g", 1)};
  std::string drawn;
  for (const std::vector<TensorPlan>& shard : plan_shards(plan, 10)) {
    for (const TensorPlan& each : shard) {
      drawn += each.name;
    }
    drawn += '|';
  }
  EXPECT_EQ(drawn, "ab|c|d|ef|g|");
  EXPECT_EQ(plan_shards(plan, 47).size(), 1U);
  EXPECT_EQ(plan_shards(plan, std::numeric_limits<std::int64_t>::max()).size(), 1U);
  EXPECT_EQ(plan_shards({}, 10).size(), 1U);
  EXPECT_THROW(plan_shards(plan, 0), InputError);
  EXPECT_THROW(plan_shards(plan, -1), InputError);
}

TEST(ShardPlan, NamesShardsLikeHuggingFace) {
  EXPECT_EQ(shard_name(0, 1), "model.safetensors");
  EXPECT_EQ(shard_name(0, 3), "model-00001-of-00003.safetensors");
  EXPECT_EQ(shard_name(2, 3), "model-00003-of-00003.safetensors");
  EXPECT_EQ(shard_name(99'999, 123'456), "model-100000-of-123456.safetensors");
}

TEST(ShardPlan, WritesTheIndexAsJsonSortedByName) {
  EXPECT_EQ(shard_index({{{"z", DType::kF32, {2}}}, {{"a \"b\"", DType::kU8, {3}}}}),
            "{\n"
            "  \"metadata\": {\n"
            "    \"total_size\": 11\n"
            "  },\n"
            "  \"weight_map\": {\n"
            "    \"a \\\"b\\\"\": \"model-00002-of-00002.safetensors\",\n"
            "    \"z\": \"model-00001-of-00002.safetensors\"\n"
            "  }\n"
            "}\n");
  EXPECT_TRUE(parse_json(shard_index({{}}), "index").contains("weight_map"));
  EXPECT_THROW(shard_index({{{"z", DType::kF32, {2}}}, {{"z", DType::kU8, {3}}}}), FormatError);
}

TEST(ShardPlan, WrittenShardsAreReadBackAsOneSet) {
  const TemporaryDirectory directory;
  std::vector<TensorPlan> plan;
  for (int i = 0; i < 9; ++i) {
    plan.push_back({std::to_string(i) + ".weight", kEveryDType[static_cast<std::size_t>(i)], {4, i + 1}});
  }
  const std::vector<std::vector<TensorPlan>> shards = plan_shards(plan, 150);
  ASSERT_GT(shards.size(), 2U);
  for (std::size_t i = 0; i < shards.size(); ++i) {
    write(directory / shard_name(i, shards.size()), shards[i]);
  }
  write_text_file(directory / "model.safetensors.index.json", shard_index(shards));

  const SafetensorsSet set = SafetensorsSet::open(directory.path());
  EXPECT_EQ(set.files().size(), shards.size());
  EXPECT_EQ(set.names().size(), plan.size());
  std::int64_t total = 0;
  for (const TensorPlan& tensor : plan) {
    const auto located = set.find(tensor.name);
    ASSERT_TRUE(located) << tensor.name;
    EXPECT_TRUE(holds(located->bytes(), tensor)) << tensor.name;
    total += tensor.bytes();
  }
  EXPECT_EQ(set.total_bytes(), total);
}

}  // namespace
}  // namespace caravan::checkpoint

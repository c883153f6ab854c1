#include <gtest/gtest.h>

#include <functional>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/checkpoint/safetensors.h"
#include "tests/checkpoint/safetensors_cases.h"
#include "tests/checkpoint/temporary_directory.h"

namespace caravan::checkpoint {
namespace {

constexpr char kIndex[] = "model.safetensors.index.json";

// A file of U8 tensors, one byte each, that holds its own first letter.
std::string file_of(const std::vector<std::string>& names) {
  std::string header = "{";
  std::string data;
  for (const std::string& name : names) {
    const std::string begin = std::to_string(data.size());
    data += name[0];
    header += (header.size() == 1 ? "\"" : ",\"") + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + begin +
              "," + std::to_string(data.size()) + "]}";
  }
  return safetensors_file(header + "}", data);
}

template <typename Failure>
void expect_refusal(const std::function<void()>& action, const std::vector<std::string>& words) {
  try {
    action();
    ADD_FAILURE() << "accepted";
  } catch (const Failure& failure) {
    const std::string message = failure.what();
    for (const std::string& word : words) {
      EXPECT_NE(message.find(word), std::string::npos) << '"' << word << "\" is not in: " << message;
    }
  }
}

TEST(SafetensorsFile, NamesTheFileAndTheOffsetOfATruncation) {
  const TemporaryDirectory directory;
  const std::string whole =
      safetensors_file(R"({"w":{"dtype":"F32","shape":[512],"data_offsets":[0,2048]}})", std::string(2048, 'w'));
  write_text_file(directory / "cut.safetensors", whole.substr(0, whole.size() - 100));
  expect_refusal<FormatError>([&] { SafetensorsFile::open(directory / "cut.safetensors"); },
                              {(directory / "cut.safetensors").string(), "\"w\"", "ends at byte 2,1", "truncated"});
}

TEST(SafetensorsFile, RefusesEmptyMissingAndOddFiles) {
  const TemporaryDirectory directory;
  write_text_file(directory / "empty.safetensors", "");
  expect_refusal<FormatError>([&] { SafetensorsFile::open(directory / "empty.safetensors"); }, {"empty.safetensors"});
  expect_refusal<FileError>([&] { SafetensorsFile::open(directory / "none.safetensors"); }, {"none.safetensors"});
  expect_refusal<FileError>([&] { SafetensorsFile::open(directory.path()); }, {directory.path().string()});
}

TEST(SafetensorsFile, BytesOutliveTheOriginalThroughACopy) {
  const TemporaryDirectory directory;
  write_text_file(directory / "x.safetensors", file_of({"q", "r"}));
  SafetensorsFile copy = [&] {
    const SafetensorsFile original = SafetensorsFile::open(directory / "x.safetensors");
    return SafetensorsFile(original);
  }();
  EXPECT_EQ(copy.bytes(*copy.find("r"))[0], std::byte{'r'});
  EXPECT_EQ(copy.path(), directory / "x.safetensors");
}

TEST(SafetensorsSet, ReadsASingleFile) {
  const TemporaryDirectory directory;
  write_text_file(directory / "model.safetensors", file_of({"b", "a"}));
  const SafetensorsSet set = SafetensorsSet::open(directory.path());
  EXPECT_EQ(set.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(set.find("b")->bytes()[0], std::byte{'b'});
  EXPECT_EQ(set.find("c"), std::nullopt);
  EXPECT_EQ(set.total_bytes(), 2);
}

TEST(SafetensorsSet, PrefersTheSingleFileToAnIndexAsTransformersDoes) {
  const TemporaryDirectory directory;
  write_text_file(directory / "model.safetensors", file_of({"a"}));
  write_text_file(directory / kIndex, "not even JSON");
  EXPECT_EQ(SafetensorsSet::open(directory.path()).names(), (std::vector<std::string>{"a"}));
}

TEST(SafetensorsSet, SaysWhatADirectoryLacks) {
  const TemporaryDirectory directory;
  expect_refusal<FileError>([&] { SafetensorsSet::open(directory.path()); },
                            {directory.path().string(), "model.safetensors", kIndex});
  expect_refusal<FileError>([&] { SafetensorsSet::open(directory / "absent"); }, {"absent", "no such directory"});
}

TEST(SafetensorsSet, NamesMissingShardsUpToAFew) {
  const TemporaryDirectory directory;
  std::string map;
  for (int i = 0; i < 8; ++i) {
    map += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":\"s" + std::to_string(i) + "\"";
  }
  write_text_file(directory / kIndex, "{\"weight_map\":{" + map + "}}");
  write_text_file(directory / "s3", file_of({"3"}));
  expect_refusal<FileError>([&] { SafetensorsSet::open(directory.path()); },
                            {directory.path().string(), "\"s0\"", "\"s1\"", "\"s5\"", "and 2 more"});
}

TEST(SafetensorsSet, ListsEveryDisagreementOfIndexAndShards) {
  const TemporaryDirectory directory;
  // "lost" is in no shard, "extra" in no index, "moved" in the other shard, "twice" in both.
  write_text_file(directory / kIndex,
                  R"({"weight_map":{"fine":"one","lost":"one","moved":"one","twice":"two","also":"two"}})");
  write_text_file(directory / "one", file_of({"fine", "twice", "extra"}));
  write_text_file(directory / "two", file_of({"moved", "twice", "also"}));
  expect_refusal<FormatError>(
      [&] { SafetensorsSet::open(directory.path()); },
      {kIndex, "\"lost\" (not in \"one\")", "\"extra\" (in \"one\")", "\"moved\" (in \"two\", listed in \"one\")",
       "\"twice\" (in \"one\", listed in \"two\")"});
}

TEST(SafetensorsSet, OpensOnlyPlainFileNames) {
  const TemporaryDirectory directory;
  write_text_file(directory / "outside", file_of({"w"}));
  std::filesystem::create_directory(directory / "model");
  const std::string outside = (directory / "outside").string();
  for (const std::string& name : {std::string("../outside"), outside, std::string(".."), std::string("."),
                                  std::string(), std::string("a/../../outside"), std::string("..\\\\outside"),
                                  std::string("out\\u0000side"), std::string("a\\nb"), std::string(256, 'x')}) {
    write_text_file(directory / "model" / kIndex, "{\"weight_map\":{\"w\":\"" + name + "\"}}");
    expect_refusal<FormatError>([&] { SafetensorsSet::open(directory / "model"); },
                                {kIndex, "\"w\"", "plain file name"});
  }
}

TEST(SafetensorsSet, RefusesAnIndexThatIsNone) {
  const TemporaryDirectory directory;
  for (const auto& [text, word] :
       std::vector<std::pair<std::string, std::string>>{{"", "byte"},
                                                        {"[]", "weight_map"},
                                                        {"{}", "weight_map"},
                                                        {R"({"weight_map":["w"]})", "weight_map"},
                                                        {R"({"weight_map":{"w":1}})", "\"w\""},
                                                        {R"({"weight_map":{"w":"a","w":"b"}})", "twice"},
                                                        {R"({"weight_map":{"\u001b[2J":"a"}})", "control character"},
                                                        {R"({"weight_map":{"w":"a")", "byte"}}) {
    write_text_file(directory / kIndex, text);
    expect_refusal<FormatError>([&] { SafetensorsSet::open(directory.path()); }, {kIndex, word});
  }
}

TEST(SafetensorsSet, NamesTheShardThatIsDamaged) {
  const TemporaryDirectory directory;
  write_text_file(directory / kIndex, R"({"weight_map":{"a":"one","b":"two"}})");
  write_text_file(directory / "one", file_of({"a"}));
  write_text_file(directory / "two", file_of({"b"}) + "tail");
  expect_refusal<FormatError>([&] { SafetensorsSet::open(directory.path()); },
                              {(directory / "two").string(), "4 bytes"});
}

}  // namespace
}  // namespace caravan::checkpoint

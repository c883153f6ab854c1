#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/data/documents.h"
#include "caravan/data/shard.h"
#include "tests/data/packed.h"
#include "tests/support/scratch.h"

namespace caravan::data {
namespace {

namespace fs = std::filesystem;
using test::gzip;
using test::message_of;
using test::ScratchDirectory;
using test::write_file;
using test::zstd;

void write_shard(const fs::path& directory) {
  ShardWriter writer(directory, 100, 10, "");
  writer.add(std::vector<std::int32_t>{1, 2, 3});
  writer.finish();
}

TEST(Recognise, TellsTheKindFromNameAndFirstBytes) {
  const ScratchDirectory scratch;
  struct Case {
    std::string name;
    std::string content;
    DatasetKind kind;
  };
  const std::string text_line = "\n  \n{\"id\": 3, \"text\": \"x\"}\n{\"ids\": [1]}\n";
  const std::string ids_line = "{\"ids\": [1, 2]}\n";
  const std::vector<Case> cases = {
      {"a.txt", "To be\n", DatasetKind::kText},
      {"a.md", "# Title\n", DatasetKind::kText},
      {"README", "plain words", DatasetKind::kText},
      {"umlaut", "gr\xc3\xbc\xc3\x9f dich", DatasetKind::kText},
      {"empty.txt", "", DatasetKind::kText},
      {"program.c", "{ int i; }\n", DatasetKind::kText},
      {"settings", "{\"hidden_size\": 4}\n", DatasetKind::kText},
      {"a.jsonl", text_line, DatasetKind::kJsonlText},
      {"a.ndjson", ids_line, DatasetKind::kJsonlIds},
      {"a.json", ids_line, DatasetKind::kJsonlIds},
      {"A.JSONL", text_line, DatasetKind::kJsonlText},
      {"both.jsonl", "{\"text\": \"x\", \"ids\": [1]}\n", DatasetKind::kJsonlIds},
      {"empty.jsonl", "\n", DatasetKind::kJsonlText},
      {"part-00000", text_line, DatasetKind::kJsonlText},
      {"a.gz", gzip("words"), DatasetKind::kText},
      {"a.txt.gz", gzip("words"), DatasetKind::kText},
      {"a.jsonl.gz", gzip(text_line), DatasetKind::kJsonlText},
      {"a.jsonl.zst", zstd(ids_line), DatasetKind::kJsonlIds},
      {"part-00001", zstd(ids_line), DatasetKind::kJsonlIds},
  };
  for (const Case& one : cases) {
    const fs::path path = scratch.path() / one.name;
    write_file(path, one.content);
    const Recognised found = recognise(path);
    EXPECT_STREQ(to_string(found.kind), to_string(one.kind)) << one.name;
    EXPECT_EQ(found.files, std::vector<fs::path>{path});
    fs::remove(path);
  }
  write_shard(scratch.path());
  EXPECT_EQ(recognise(scratch.path() / "tokens-000000.safetensors").kind, DatasetKind::kShards);
  fs::rename(scratch.path() / "tokens-000000.safetensors", scratch.path() / "shard");
  EXPECT_EQ(recognise(scratch.path() / "shard").kind, DatasetKind::kShards);
}

// A character that lies across the end of what is looked at is no fault.
TEST(Recognise, LooksAtTheHeadOfALongText) {
  const ScratchDirectory scratch;
  for (std::size_t before = 65530; before < 65540; ++before) {
    write_file(scratch.path() / "long", std::string(before, 'x') + "\xf0\x9f\x98\x80 and on");
    EXPECT_EQ(recognise(scratch.path() / "long").kind, DatasetKind::kText) << before;
  }
}

TEST(Recognise, TakesTheFilesOfADirectoryInTheOrderOfTheirPaths) {
  const ScratchDirectory scratch;
  fs::create_directories(scratch.path() / "b/inner");
  fs::create_directories(scratch.path() / ".git");
  for (const char* name : {"c.txt", "a.txt", "b/2.txt", "b/inner/1.md", "b/10.txt.gz"}) {
    write_file(scratch.path() / name, std::string(name).ends_with("gz") ? gzip("packed") : "words");
  }
  write_file(scratch.path() / ".hidden", "\xff\xff");
  write_file(scratch.path() / ".git/index", "\xff\xff");
  const Recognised found = recognise(scratch.path());
  std::vector<fs::path> expected;
  for (const char* name : {"a.txt", "b/10.txt.gz", "b/2.txt", "b/inner/1.md", "c.txt"}) {
    expected.push_back(scratch.path() / name);
  }
  EXPECT_EQ(found.files, expected);
  EXPECT_EQ(found.kind, DatasetKind::kText);
}

TEST(Recognise, RefusesALinkToADirectoryRatherThanPassOverIt) {
  const ScratchDirectory scratch;
  fs::create_directories(scratch.path() / "set");
  fs::create_directories(scratch.path() / "elsewhere");
  write_file(scratch.path() / "elsewhere/b.txt", "words");
  fs::create_symlink(scratch.path() / "elsewhere/b.txt", scratch.path() / "set/a.txt");
  EXPECT_EQ(recognise(scratch.path() / "set").files.size(), 1U);
  fs::create_directory_symlink(scratch.path() / "elsewhere", scratch.path() / "set/c");
  EXPECT_NE(message_of<InputError>([&] { recognise(scratch.path() / "set"); }).find("c: is a link to a directory"),
            std::string::npos);
}

TEST(Recognise, LetsEmptyJsonlStandBesideEitherKind) {
  const ScratchDirectory scratch;
  write_file(scratch.path() / "0.jsonl", "");
  write_file(scratch.path() / "1.jsonl", "{\"ids\": [1]}");
  write_file(scratch.path() / "2.jsonl", "\n\n");
  EXPECT_EQ(recognise(scratch.path()).kind, DatasetKind::kJsonlIds);
}

TEST(Recognise, SaysWhatIsWrong) {
  const ScratchDirectory scratch;
  const auto message = [&](const char* name, const std::string& content) {
    const fs::path path = scratch.path() / name;
    write_file(path, content);
    const std::string found = message_of<InputError>([&] { recognise(path); });
    fs::remove(path);
    return found;
  };
  EXPECT_NE(message_of<FileError>([&] { recognise(scratch.path() / "nothing"); }).find("nothing"), std::string::npos);
  EXPECT_NE(message_of<InputError>([&] { recognise(scratch.path()); }).find("holds no files"), std::string::npos);
  EXPECT_NE(message("a.png", "\x89PNG\r\n\x1a\n").find("a.png: is neither text in UTF-8 nor"), std::string::npos);
  EXPECT_NE(message("utf16", std::string("h\0i\0", 4)).find("utf16: is neither"), std::string::npos);
  EXPECT_NE(message("x.jsonl", "\n{\"txt\": 1}\n").find("x.jsonl:2: expected a JSON object with the field"),
            std::string::npos);
  EXPECT_NE(message("x.jsonl", "[1]\n").find("x.jsonl:1: expected"), std::string::npos);

  write_file(scratch.path() / "y.jsonl", "\n\n{\"text\": \n");
  EXPECT_NE(message_of<FormatError>([&] { recognise(scratch.path() / "y.jsonl"); }).find("y.jsonl:3: "),
            std::string::npos);
  fs::remove(scratch.path() / "y.jsonl");

  checkpoint::SafetensorsWriter weights(scratch.path() / "model.safetensors", {});
  weights.finish();
  EXPECT_NE(message_of<InputError>([&] { recognise(scratch.path()); }).find("holds no tokens"), std::string::npos);
  fs::remove(scratch.path() / "model.safetensors");

  write_file(scratch.path() / "a.jsonl", "{\"text\": \"x\"}");
  write_file(scratch.path() / "b.txt", "x");
  const std::string mixed = message_of<InputError>([&] { recognise(scratch.path()); });
  EXPECT_NE(mixed.find("mixes kinds"), std::string::npos);
  EXPECT_NE(mixed.find("a.jsonl\" is jsonl"), std::string::npos);
  EXPECT_NE(mixed.find("b.txt\" is text"), std::string::npos);
}

}  // namespace
}  // namespace caravan::data

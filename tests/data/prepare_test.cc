#include "caravan/data/prepare.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/data/jsonl.h"
#include "tests/data/packed.h"
#include "tests/support/scratch.h"

namespace caravan::data {
namespace {

namespace fs = std::filesystem;
using Lists = std::vector<std::vector<std::int32_t>>;
using test::gzip;
using test::message_of;
using test::read_file;
using test::ScratchDirectory;
using test::write_file;
using test::zstd;

// A byte is an id; 256 opens a document, 257 ends it.
Encoder bytes_encoder() {
  return {.encode =
              [](std::string_view text) {
                std::vector<std::int32_t> ids = {256};
                for (const char c : text) {
                  ids.push_back(static_cast<unsigned char>(c));
                }
                ids.push_back(257);
                return ids;
              },
          .fingerprint = "bytes",
          .vocab_size = 258};
}

Lists lists_of(const Documents& documents) {
  Lists lists;
  for (std::int64_t i = 0; i < documents.size(); ++i) {
    lists.emplace_back(documents[i].begin(), documents[i].end());
  }
  return lists;
}

std::vector<std::int32_t> encoded(const std::string& text) {
  return bytes_encoder().encode(text);
}

class Prepare : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& content) {
    fs::create_directories((scratch_.path() / name).parent_path());
    write_file(scratch_.path() / name, content);
    return scratch_.path() / name;
  }
  PrepareOptions options() const { return {.cache = scratch_.path() / "cache", .threads = 2}; }
  Documents prepare(const fs::path& path) { return prepare_with(path, options(), &encoder_); }
  std::string input_error(const fs::path& path) {
    return message_of<InputError>([&] { prepare(path); });
  }
  std::string format_error(const fs::path& path) {
    return message_of<FormatError>([&] { prepare(path); });
  }
  std::size_t cache_entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(options().cache), fs::directory_iterator()));
  }

  ScratchDirectory scratch_;
  Encoder encoder_ = bytes_encoder();
};

TEST_F(Prepare, MakesOneDocumentATextFile) {
  write("set/b.txt", "two\nlines\n");
  write("set/a.txt.gz", gzip("one"));
  write("set/c.txt", "");
  write("set/d.md.zst", zstd("gr\xc3\xbc\xc3\x9f"));
  EXPECT_EQ(lists_of(prepare(scratch_.path() / "set")),
            (Lists{encoded("one"), encoded("two\nlines\n"), encoded("gr\xc3\xbc\xc3\x9f")}));
}

TEST_F(Prepare, MakesOneDocumentALine) {
  const std::string lines =
      "{\"text\": \"a\\n\\u00fc\", \"url\": \"x\"}\r\n\n  \n{\"id\": 1, \"text\": \"\"}\n{\"text\":\"c\"}";
  const Lists expected = {encoded("a\n\xc3\xbc"), encoded(""), encoded("c")};
  EXPECT_EQ(lists_of(prepare(write("a.jsonl", lines))), expected);
  EXPECT_EQ(lists_of(prepare(write("a.jsonl.gz", gzip(lines)))), expected);
  EXPECT_EQ(lists_of(prepare(write("a.jsonl.zst", zstd(lines)))), expected);
}

TEST_F(Prepare, TakesIdsAsTheyStandAndNeedsNoTokenizer) {
  const fs::path path = write("a.jsonl", "{\"ids\": [5, 0, 2147483647]}\n{\"ids\": []}\n{\"ids\": [7], \"text\": 3}\n");
  const Documents documents = prepare_with(path, options(), nullptr);
  EXPECT_EQ(lists_of(documents), (Lists{{5, 0, 2147483647}, {}, {7}}));
  EXPECT_EQ(documents.tokenizer(), "");
  // Another tokenizer, or none, changes nothing about bare ids.
  prepare(path);
  EXPECT_EQ(cache_entries(), 1U);
}

TEST_F(Prepare, NamesFileAndLineOfBadJsonl) {
  const auto bad_ids = [&](const std::string& line) { return write("x.jsonl", "{\"ids\": [1]}\n\n" + line + "\n"); };
  const auto bad_text = [&](const std::string& line) { return write("x.jsonl", "{\"text\": \"\"}\n\n" + line + "\n"); };
  struct Case {
    std::string message;
    std::string expected;
  };
  const std::vector<Case> cases = {
      {format_error(bad_ids("{\"ids\": [1, }")), "x.jsonl:3: not valid JSON at byte"},
      {format_error(bad_ids("{\"ids\": 3}")), "x.jsonl:3: expected a list of whole numbers as \"ids\", found number"},
      {format_error(bad_ids("{\"ids\": [1, 1.5]}")), "x.jsonl:3: expected whole numbers as \"ids\", found a fraction"},
      {format_error(bad_ids("{\"ids\": [1, \"a\"]}")), "found string at position 1"},
      {format_error(bad_ids("{\"text\": \"a\"}")), "x.jsonl:3: expected a JSON object with the field \"ids\""},
      {format_error(bad_ids("[1, 2]")), "found array"},
      {input_error(bad_ids("{\"ids\": [1, -1]}")), "x.jsonl:3: the id -1 at position 1 is outside every vocabulary"},
      {input_error(bad_ids("{\"ids\": [2147483648]}")), "the id 2147483648 at position 0"},
      {input_error(bad_ids("{\"ids\": [18446744073709551615]}")), "the id 18446744073709551615"},
      {format_error(bad_text("{\"text\": 1}")), "x.jsonl:3: expected a string as \"text\", found number"},
      {format_error(bad_text("{\"text\": \"\\ud800\"}")), "x.jsonl:3: "},
      {format_error(bad_text("{\"text\": \"\xff\"}")), "x.jsonl:3: "},
      {format_error(bad_text("{\"ids\": [1]}")), "with the field \"text\", found an object without it"},
  };
  for (const Case& one : cases) {
    EXPECT_NE(one.message.find(one.expected), std::string::npos) << one.expected << " | " << one.message;
  }
  const std::string lines = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n";
  const std::string packed = gzip(lines);
  EXPECT_NE(format_error(write("y.jsonl.gz", packed.substr(0, packed.size() - 3))).find("y.jsonl.gz:3: the gzip data"),
            std::string::npos);
  EXPECT_EQ(cache_entries(), 0U);  // nothing half done is left
}

TEST_F(Prepare, ReportsTheFirstFaultWhateverTheThreads) {
  std::string lines;
  for (int i = 0; i < 200; ++i) {
    lines += i % 50 == 30 ? "{\"text\": 1}\n" : "{\"text\": \"good\"}\n";
  }
  const fs::path path = write("x.jsonl", lines);
  for (int threads = 1; threads <= 4; ++threads) {
    PrepareOptions with = options();
    with.threads = threads;
    const std::string message = message_of<FormatError>([&] { prepare_with(path, with, &encoder_); });
    EXPECT_NE(message.find("x.jsonl:31:"), std::string::npos) << message;
  }
}

TEST_F(Prepare, RefusesWhatCannotBeTrainedOn) {
  EXPECT_NE(input_error(write("bad.txt", "good \xff bad")).find("bad.txt: byte 5 (0xff) is not UTF-8"),
            std::string::npos);
  EXPECT_NE(input_error(write("empty.txt", "")).find("empty.txt: the data set holds no documents"), std::string::npos);
  EXPECT_NE(input_error(write("e.jsonl", "\n")).find("holds no documents"), std::string::npos);
  EXPECT_NE(input_error(write("i.jsonl", "{\"ids\": []}\n")).find("i.jsonl: the data set holds no"), std::string::npos);
  const fs::path text = write("a.txt", "words");
  EXPECT_NE(message_of<InputError>([&] { prepare_with(text, options(), nullptr); }).find("needs a tokenizer"),
            std::string::npos);
  EXPECT_THROW(prepare_with(text, {}, &encoder_), ConfigError);
  encoder_.encode = [](std::string_view) -> std::vector<std::int32_t> { throw InputError("beyond the limits"); };
  EXPECT_NE(input_error(text).find("a.txt: beyond the limits"), std::string::npos);
  EXPECT_THROW(prepare(scratch_.path() / "nothing"), FileError);
}

TEST_F(Prepare, ChecksTheVocabularyAlsoOfWhatWasPreparedBefore) {
  const fs::path ids = write("a.jsonl", "{\"ids\": [1, 2]}\n{\"ids\": [3, 40]}\n");
  const fs::path text = write("a.txt", "words");
  PrepareOptions small = options();
  small.vocab_size = 40;
  const auto message = [&](const fs::path& path) {
    return message_of<InputError>([&] { prepare_with(path, small, &encoder_); });
  };
  EXPECT_NE(message(ids).find("a.jsonl:2: the id 40 at position 1 is outside the vocabulary of 40"), std::string::npos);
  EXPECT_NE(message(text).find("a.txt: the id 256 at position 0"), std::string::npos);
  prepare(ids);
  EXPECT_NE(message(ids).find("a.jsonl: the id 40 at position 1 of document 2 is outside"), std::string::npos);
  small.vocab_size = 41;
  EXPECT_EQ(prepare_with(ids, small, &encoder_).size(), 2);
}

TEST_F(Prepare, GivesTheSameWithAnyNumberOfThreadsAndSizeOfShards) {
  std::string lines;
  Lists expected;
  for (int i = 0; i < 9000; ++i) {  // several windows of documents
    const std::string text(static_cast<std::size_t>(i % 37), static_cast<char>('a' + i % 26));
    lines += "{\"text\": \"" + text + "\"}\n";
    expected.push_back(encoded(text));
  }
  const fs::path path = write("a.jsonl", lines);
  for (const int threads : {1, 2, 3}) {
    for (const std::int64_t shard_tokens : {20'000, 1 << 26}) {
      fs::remove_all(options().cache);
      PrepareOptions with = options();
      with.threads = threads;
      with.shard_tokens = shard_tokens;
      std::int64_t last = 0;
      with.progress = [&](std::int64_t done, std::int64_t total) {
        EXPECT_GE(done, last);
        EXPECT_EQ(total, static_cast<std::int64_t>(lines.size()));
        last = done;
      };
      EXPECT_EQ(lists_of(prepare_with(path, with, &encoder_)), expected);
      EXPECT_EQ(last, static_cast<std::int64_t>(lines.size()));
    }
  }
}

TEST_F(Prepare, ReadsTheSourcesOnlyOnce) {
  const fs::path path = write("a.txt", "first");
  const fs::file_time_type time = fs::last_write_time(path);
  const Lists first = lists_of(prepare(path));
  write_file(path, "other");
  fs::last_write_time(path, time);  // size and time are as they were
  std::atomic<int> calls{0};
  encoder_.encode = [&](std::string_view text) {
    ++calls;
    return bytes_encoder().encode(text);
  };
  EXPECT_EQ(lists_of(prepare(path)), first);
  EXPECT_EQ(calls, 0);
  // By another way to the same file.
  const fs::path former = fs::current_path();
  fs::current_path(scratch_.path());
  prepare("./a.txt");
  fs::current_path(former);
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(cache_entries(), 1U);
}

TEST_F(Prepare, StartsAgainWhenAnythingChanges) {
  const fs::path path = write("a.txt", "first");
  prepare(path);
  const fs::file_time_type time = fs::last_write_time(path);
  write_file(path, "other");
  fs::last_write_time(path, time + std::chrono::seconds(1));
  EXPECT_EQ(lists_of(prepare(path)), Lists{encoded("other")});
  write_file(path, "longer text");
  fs::last_write_time(path, time);
  EXPECT_EQ(lists_of(prepare(path)), Lists{encoded("longer text")});
  encoder_.fingerprint = "another";
  EXPECT_EQ(prepare(path).tokenizer(), "another");
  EXPECT_EQ(cache_entries(), 4U);
}

TEST_F(Prepare, MakesDamagedAndForeignEntriesAgain) {
  const fs::path path = write("a.txt", "first");
  prepare(path);
  const fs::path entry = fs::directory_iterator(options().cache)->path();
  const fs::path shard = entry / "tokens-000000.safetensors";
  const std::string good = read_file(shard);
  const std::vector<std::function<void()>> harms = {
      [&] { write_file(shard, good.substr(0, good.size() - 1)); },
      [&] { write_file(shard, good.substr(0, good.size() - 4) + std::string("\1\0\0\0", 4)); },  // a valid id
      [&] { fs::remove(shard); },
      [&] { write_file(entry / ".caravan-cache.json", "{"); },
      [&] { write_file(entry / ".caravan-cache.json", "{\"key\": \"of another\"}"); },
      [&] { fs::remove(entry / ".caravan-cache.json"); },
      [&] {
        fs::remove_all(entry);
        fs::create_directory(entry);
        write_file(entry / "letter.txt", "foreign");
      },
  };
  for (std::size_t i = 0; i < harms.size(); ++i) {
    harms[i]();
    EXPECT_EQ(lists_of(prepare(path)), Lists{encoded("first")}) << i;
    EXPECT_EQ(read_file(shard), good) << i;
  }
  EXPECT_EQ(cache_entries(), 1U);
}

TEST_F(Prepare, NoticesAFileThatChangesMeanwhile) {
  const fs::path path = write("a.txt", "first");
  encoder_.encode = [&](std::string_view text) {
    write_file(path, "grows while it is read");
    return bytes_encoder().encode(text);
  };
  EXPECT_NE(input_error(path).find("changed while it was read"), std::string::npos);
  EXPECT_EQ(cache_entries(), 0U);
}

TEST_F(Prepare, OpensShardsAndKnowsTheirTokenizer) {
  const fs::path path = write("a.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"c\"}\n");
  const fs::path directory = scratch_.path() / "shards";
  PrepareOptions with;
  with.shard_tokens = 4;
  const ShardSummary summary = write_shards_with(path, directory, with, &encoder_);
  EXPECT_EQ(summary.documents, 2);
  EXPECT_EQ(summary.tokens, 7);
  EXPECT_EQ(summary.shards, 2);
  const Lists expected = {encoded("ab"), encoded("c")};
  EXPECT_EQ(lists_of(prepare_with(directory, {}, nullptr)), expected);
  EXPECT_EQ(lists_of(prepare_with(directory, {}, &encoder_)), expected);
  with.shard_tokens = 100;
  EXPECT_EQ(write_shards_with(directory, scratch_.path() / "one", with, nullptr).shards, 1);
  EXPECT_EQ(prepare_with(scratch_.path() / "one", {}, nullptr).tokenizer(), "bytes");
  encoder_.fingerprint = "another";
  EXPECT_NE(message_of<InputError>([&] { prepare_with(directory, {}, &encoder_); }).find("another tokenizer (bytes)"),
            std::string::npos);
  EXPECT_THROW(prepare_with(directory, {.vocab_size = 257}, nullptr), InputError);
}

TEST_F(Prepare, WritesShardsWholeOrNotAtAll) {
  const fs::path good = write("a.jsonl", "{\"ids\": [1]}\n");
  const fs::path target = scratch_.path() / "out/shards";
  fs::create_directory(target.parent_path());
  const fs::path bad = write("b.jsonl", "{\"ids\": [1]}\n{\"ids\": [2]\n");
  EXPECT_THROW(write_shards_with(bad, target, {.shard_tokens = 1}, nullptr), FormatError);
  EXPECT_THROW(write_shards_with(write("c.jsonl", ""), target, {}, &encoder_), InputError);
  EXPECT_TRUE(fs::is_empty(target.parent_path()));
  EXPECT_EQ(write_shards_with(good, target, {}, nullptr).shards, 1);
  EXPECT_NE(message_of<FileError>([&] { write_shards_with(good, target, {}, nullptr); }).find("exists already"),
            std::string::npos);
}

// A limit on the size of files stands for a full disk: the system refuses in the middle of a shard.
TEST_F(Prepare, LeavesNothingWhenTheDiskIsFull) {
  std::string ids = "{\"ids\": [1";
  for (int i = 0; i < 20000; ++i) {
    ids += ",2";
  }
  const fs::path path = write("a.jsonl", ids + "]}\n");
  rlimit former{};
  getrlimit(RLIMIT_FSIZE, &former);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {.rlim_cur = 50'000, .rlim_max = former.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = message_of<FileError>([&] { prepare(path); });
  setrlimit(RLIMIT_FSIZE, &former);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("tokens-000000.safetensors"), std::string::npos) << message;
  EXPECT_EQ(cache_entries(), 0U);
  EXPECT_EQ(prepare(path).tokens(), 20001);
}

TEST(Jsonl, KnowsBlankLines) {
  EXPECT_TRUE(is_blank(""));
  EXPECT_TRUE(is_blank(" \t\r"));
  EXPECT_FALSE(is_blank(" {"));
}

}  // namespace
}  // namespace caravan::data

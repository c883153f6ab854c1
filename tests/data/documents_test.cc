#include "caravan/data/documents.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/data/shard.h"
#include "tests/support/scratch.h"

namespace caravan::data {
namespace {

namespace fs = std::filesystem;
using Lists = std::vector<std::vector<std::int32_t>>;
using test::message_of;
using test::read_file;
using test::ScratchDirectory;
using test::write_file;

Lists lists_of(const Documents& documents) {
  Lists lists;
  for (std::int64_t i = 0; i < documents.size(); ++i) {
    lists.emplace_back(documents[i].begin(), documents[i].end());
  }
  return lists;
}

// Writes a shard with its own mistakes; `tokens_first` puts the offsets where they are not aligned.
fs::path write_raw(const fs::path& path, const std::vector<std::int32_t>& tokens,
                   const std::vector<std::int64_t>& offsets, std::map<std::string, std::string> metadata,
                   bool tokens_first = false) {
  const checkpoint::TensorPlan first{"tokens", DType::kI32, {static_cast<std::int64_t>(tokens.size())}};
  const checkpoint::TensorPlan second{"documents", DType::kI64, {static_cast<std::int64_t>(offsets.size())}};
  metadata.emplace("caravan.shard", "1");
  checkpoint::SafetensorsWriter writer(path, tokens_first ? std::vector{first, second} : std::vector{second, first},
                                       metadata);
  if (tokens_first) {
    writer.append(std::as_bytes(std::span(tokens)));
  }
  writer.append(std::as_bytes(std::span(offsets)));
  if (!tokens_first) {
    writer.append(std::as_bytes(std::span(tokens)));
  }
  writer.finish();
  return path;
}

TEST(Shards, KeepDocumentsWholeAndInOrder) {
  const ScratchDirectory scratch;
  const Lists lists = {{1, 2, 3}, {}, {4, 5}, {6}, {7, 8, 9, 10, 11, 12, 13}, {14}};
  ShardWriter writer(scratch.path(), 5, 100, "abc");
  for (const std::vector<std::int32_t>& list : lists) {
    writer.add(list);
  }
  const ShardSummary summary = writer.finish();
  EXPECT_EQ(summary.documents, 6);
  EXPECT_EQ(summary.tokens, 14);
  ASSERT_EQ(summary.shards, 4);  // 3 + 0 + 2, 1, 7 on its own, 1
  std::vector<fs::path> paths;
  std::vector<std::int64_t> tokens;
  for (std::int64_t i = 0; i < summary.shards; ++i) {
    paths.push_back(scratch.path() / token_shard_name(i));
    tokens.push_back(Documents::open({paths.back()}).tokens());
  }
  EXPECT_EQ(tokens, (std::vector<std::int64_t>{5, 1, 7, 1}));
  const Documents documents = Documents::open(paths);
  EXPECT_EQ(lists_of(documents), lists);
  EXPECT_EQ(documents.tokens(), 14);
  EXPECT_EQ(documents.largest_id(), 14);
  EXPECT_EQ(documents.tokenizer(), "abc");
  const auto header = checkpoint::SafetensorsFile::open(paths[0]).header();
  EXPECT_EQ(header.metadata.at("caravan.vocab_size"), "100");
  EXPECT_THROW(ShardWriter(scratch.path(), 0, 1, ""), ConfigError);
}

TEST(Shards, AreReadWhereverTheirTensorsLie) {
  const ScratchDirectory scratch;
  const Documents documents =
      Documents::open({write_raw(scratch.path() / "a.safetensors", {7, 8, 9}, {0, 1, 3}, {}, /*tokens_first=*/true)});
  EXPECT_EQ(lists_of(documents), (Lists{{7}, {8, 9}}));
}

TEST(Shards, RefuseWhatIsWrongInside) {
  const ScratchDirectory scratch;
  struct Case {
    std::vector<std::int32_t> tokens;
    std::vector<std::int64_t> offsets;
    std::map<std::string, std::string> metadata;
    std::string expected;
  };
  const std::vector<Case> cases = {
      {{1, 2}, {}, {}, "must lead from 0 to 2, and there are none"},
      {{1, 2}, {1, 2}, {}, "must lead from 0 to 2, and lead from 1 to 2"},
      {{1, 2}, {0, 1}, {}, "must lead from 0 to 2, and lead from 0 to 1"},
      {{1, 2}, {0, 3}, {}, "lead from 0 to 3"},
      {{1, 2}, {0, 9, -4, 2}, {}, "document 1 ends at token -4, before its beginning at 9"},
      {{1, -2}, {0, 2}, {}, "token 1 is -2, outside the vocabulary"},
      {{1, 5}, {0, 2}, {{"caravan.vocab_size", "5"}}, "token 1 is 5, outside the vocabulary of 5"},
      {{1, 5}, {0, 2}, {{"caravan.vocab_size", "five"}}, "must be a whole number, found \"five\""},
      {{1, 5}, {0, 2}, {{"caravan.xxh3", "0123456789abcdef"}}, "its hash is"},
      {{1, 5}, {0, 2}, {{"caravan.shard", "2"}}, "version \"2\""},
  };
  for (const Case& one : cases) {
    const fs::path path = write_raw(scratch.path() / "bad.safetensors", one.tokens, one.offsets, one.metadata);
    const std::string message = message_of<FormatError>([&] { Documents::open({path}); });
    EXPECT_NE(message.find(one.expected), std::string::npos) << one.expected << " | " << message;
    EXPECT_NE(message.find("bad.safetensors"), std::string::npos);
  }
  checkpoint::SafetensorsWriter(scratch.path() / "empty.safetensors", {}, {{"caravan.shard", "1"}}).finish();
  EXPECT_NE(message_of<FormatError>([&] {
              Documents::open({scratch.path() / "empty.safetensors"});
            }).find("a tensor \"tokens\" of type I32"),
            std::string::npos);
  EXPECT_THROW(Documents::open({scratch.path() / "nothing"}), FileError);
}

// The hash covers all of the content, and the header has its own checks: no flipped bit goes through to other ids.
TEST(Shards, NeverGiveOtherIdsForDamagedFiles) {
  const ScratchDirectory scratch;
  ShardWriter writer(scratch.path(), 100, 50, "");
  writer.add(std::vector<std::int32_t>{1, 2, 3});
  writer.add(std::vector<std::int32_t>{4});
  writer.finish();
  const fs::path path = scratch.path() / token_shard_name(0);
  const std::string good = read_file(path);
  const Lists expected = lists_of(Documents::open({path}));
  int refused = 0;
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] ^= 0x04;
    write_file(path, bad);
    try {
      EXPECT_EQ(lists_of(Documents::open({path})), expected) << i;
    } catch (const Error&) {
      ++refused;
    }
    write_file(path, good.substr(0, i));
    EXPECT_THROW(Documents::open({path}), FormatError) << i;
  }
  EXPECT_GT(refused, 100);
}

TEST(Documents, OfTwoTokenizersDoNotMix) {
  const ScratchDirectory scratch;
  const auto shard = [&](const char* name, const char* tokenizer) {
    return write_raw(scratch.path() / name, {1}, {0, 1}, {{"caravan.tokenizer", tokenizer}});
  };
  const fs::path first = shard("a.safetensors", "one");
  const fs::path second = shard("b.safetensors", "two");
  const fs::path bare = shard("c.safetensors", "");
  const std::string message = message_of<InputError>([&] { Documents::open({first, second}); });
  EXPECT_NE(message.find("b.safetensors: was made with the tokenizer two"), std::string::npos) << message;
  EXPECT_EQ(Documents::open({bare, first}).tokenizer(), "one");
  EXPECT_THROW(Documents::concatenate({Documents::open({first}), Documents::open({second})}), InputError);
}

TEST(Documents, OutliveWhatTheyWereMadeFrom) {
  const ScratchDirectory scratch;
  Documents tail;
  EXPECT_EQ(tail.size(), 0);
  EXPECT_EQ(tail.tokens(), 0);
  EXPECT_EQ(tail.largest_id(), -1);
  {
    const Documents all = Documents::open({write_raw(scratch.path() / "a", {1, 2, 3, 4}, {0, 2, 4}, {})});
    tail = all.split(0.5).second;
  }
  fs::remove(scratch.path() / "a");
  EXPECT_EQ(lists_of(tail), (Lists{{3, 4}}));
}

TEST(Documents, SplitByTokensAndCutTheDocumentAcross) {
  const Documents documents = Documents::of({{0, 1, 2, 3}, {4, 5}, {6, 7, 8, 9}});
  const auto [train, rest] = documents.split(0.3);
  EXPECT_EQ(lists_of(train), (Lists{{0, 1, 2, 3}, {4, 5}, {6}}));
  EXPECT_EQ(lists_of(rest), (Lists{{7, 8, 9}}));
  EXPECT_EQ(train.largest_id(), 6);
  EXPECT_EQ(rest.largest_id(), 9);
  EXPECT_EQ(lists_of(documents.split(0.4).first), (Lists{{0, 1, 2, 3}, {4, 5}}));
  EXPECT_EQ(documents.split(0.0).second.size(), 0);
  EXPECT_EQ(documents.split(1.0).first.size(), 0);
  EXPECT_EQ(lists_of(documents.split(1.0).second), lists_of(documents));
  EXPECT_THROW(documents.split(1.5), InputError);
  EXPECT_THROW(documents.split(-0.1), InputError);
  EXPECT_THROW(documents[3], InputError);
  EXPECT_THROW(documents[-1], InputError);
}

TEST(Documents, SplitAndConcatenateAgreeWithListsForRandomSets) {
  std::mt19937 random(5);
  for (int run = 0; run < 300; ++run) {
    std::vector<Documents> sets;
    std::vector<std::int32_t> flat;
    const std::size_t set_count = 1 + random() % 3;
    for (std::size_t set = 0; set < set_count; ++set) {
      Lists lists(random() % 5);
      for (std::vector<std::int32_t>& list : lists) {
        for (std::size_t n = random() % 6; n > 0; --n) {
          list.push_back(static_cast<std::int32_t>(random() % 1000));
          flat.push_back(list.back());
        }
      }
      sets.push_back(Documents::of(lists));
    }
    const Documents all = Documents::concatenate(sets);
    const double fraction = static_cast<double>(random() % 101) / 100.0;
    const auto [before, after] = all.split(fraction);
    // Splitting twice meets documents that are cut already.
    const auto [middle, end] = after.split(0.5);
    const auto parts = {before, middle, end};
    std::vector<std::int32_t> joined;
    std::int64_t tokens = 0;
    for (const Documents& part : parts) {
      std::int32_t largest = -1;
      for (const std::vector<std::int32_t>& list : lists_of(part)) {
        joined.insert(joined.end(), list.begin(), list.end());
        for (const std::int32_t id : list) {
          largest = std::max(largest, id);
        }
      }
      EXPECT_EQ(part.largest_id(), largest);
      tokens += part.tokens();
    }
    EXPECT_EQ(joined, flat);
    EXPECT_EQ(tokens, static_cast<std::int64_t>(flat.size()));
    EXPECT_EQ(after.tokens(), std::llround(fraction * static_cast<double>(flat.size())));
  }
}

}  // namespace
}  // namespace caravan::data

#include "caravan/tokenizer/piece_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <random>
#include <thread>

#include "caravan/tokenizer/merge_heap.h"
#include "caravan/tokenizer/readers.h"
#include "caravan/tokenizer/utf8.h"
#include "tests/tokenizer/golden_files.h"

namespace caravan::tokenizer {
namespace {

// All that merging alone gives: no memory, no short cut for what is a token as it stands.
Ids merged(const BpeModel& model, std::string_view piece) {
  Ids start;
  Ids ids;
  model.start(piece, start);
  merge_long(model.merges, start, ids, [](std::int32_t, std::int32_t, std::int32_t) {});
  return ids;
}

std::unique_ptr<Tokenizer::Table> read(const std::string& name) {
  auto table = std::make_unique<Tokenizer::Table>();
  read_tokenizer_json(golden_text(name), name, NamedTokens{}, *table);
  table->finish(name);
  return table;
}

// Words of a few syllables, so that many are tokens, many are made of some, and many come again.
std::string random_word(std::mt19937& dice) {
  static const std::vector<std::string> kParts = {
      " ",  "the", "th", "e",      "in", "ing", "an", "nd", "er",     "o",
      "re", "s",   "t",  "\u00E9", "x",  "zq",  "1",  ".",  "\u4E2D", std::string(1, '\0')};
  std::string word;
  for (unsigned i = 1 + dice() % (dice() % 8 == 0 ? 40 : 5); i > 0; --i) {
    word += kParts[dice() % kParts.size()];
  }
  return word;
}

TEST(PieceCache, GivesWhatMergingGives) {
  for (const char* name : {"gpt2.json", "llama2.json"}) {
    const auto table = read(name);
    ASSERT_FALSE(table->model.ignore_merges);
    PieceCache cache(table->model);
    std::mt19937 dice(5);
    for (int round = 0; round < 300; ++round) {
      std::string text;
      std::vector<std::uint32_t> ends;
      Ids expected;
      for (unsigned i = 1 + dice() % 200; i > 0; --i) {
        const std::string word = random_word(dice);
        text += word;
        ends.push_back(static_cast<std::uint32_t>(text.size()));
        const Ids ids = merged(table->model, word);
        expected.insert(expected.end(), ids.begin(), ids.end());
        Ids alone;
        cache.encode(word, alone);
        ASSERT_EQ(alone, ids) << word;
        alone.clear();
        table->model.encode(word, alone);
        ASSERT_EQ(alone, ids) << word;
      }
      Ids found = {7};
      cache.encode(text, 0, ends.data(), ends.size(), found);
      found.erase(found.begin());
      ASSERT_EQ(found, expected);
    }
  }
}

// More pieces than there is room for, short and long, and more ids than are kept: what is forgotten is merged again.
TEST(PieceCache, ForgetsAndIsRightAgain) {
  const auto table = read("gpt2.json");
  PieceCache cache(table->model);
  std::mt19937 dice(9);
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t i = 0; i < 400'000; ++i) {
      std::string word = "q" + std::to_string(i * 2654435761U);
      word.append(i % 4 == 0 ? i % 50 : 0, 'z');
      Ids found;
      cache.encode(word, found);
      if (i % 64 == 0) {
        ASSERT_EQ(found, merged(table->model, word)) << word;
      }
    }
  }
}

TEST(PieceCache, EveryTokenThatIsAWordIsMergedIntoItselfOrNot) {
  for (const char* name : {"gpt2.json", "llama3.json"}) {
    const auto table = read(name);
    int alone = 0;
    for (std::int32_t id = 0; id < table->model.tokens.size(); ++id) {
      if (!table->model.tokens.is_searchable(id)) {
        continue;
      }
      const std::string_view token = table->model.tokens.bytes(id);
      Ids found;
      table->model.encode(token, found);
      const bool stands = table->model.ignore_merges && table->model.tokens.find(token);
      ASSERT_EQ(found, stands ? Ids{id} : merged(table->model, token)) << token;
      alone += found == Ids{id} ? 1 : 0;
    }
    EXPECT_GT(alone, 256);
  }
}

// Pairs of one rank that become different tokens, as equal scores of SentencePiece make them: the leftmost goes first.
TEST(PieceCache, EqualRanksGoFromTheLeft) {
  for (const std::int32_t second : {4, 5}) {  // 4: both pairs become the same, so that rank and pair share a word
    BpeModel model;
    const std::vector<std::string> tokens = {"a", "b", "c", "d", "ab", "bc", "abc"};
    model.byte_ids.fill(3);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      model.tokens.put(static_cast<std::int32_t>(i), tokens[i], /*searchable=*/true);
      if (i < 4) {
        model.byte_ids[static_cast<unsigned char>(tokens[i][0])] = static_cast<std::int32_t>(i);
      }
    }
    model.merges.put(0, 1, {0, 4});
    model.merges.put(1, 2, {0, second});
    model.merges.put(4, 2, {1, 6});
    model.merges.put(0, 0, {7, 1});
    model.merges.put(0, 0, {3, 1});  // again: this one counts
    model.tokens.index();
    model.index();
    EXPECT_EQ(model.merges.find(0, 0).rank, 3U);
    EXPECT_EQ(model.merges.find(1, 2).id, second);
    EXPECT_EQ(model.merges.find(2, 1).id, -1);
    EXPECT_EQ(model.merges.find(-2, 1).id, -1);
    EXPECT_EQ(model.merges.find(1, 700).rank, MergeTable::kNoRank);
    PieceCache cache(model);
    for (const char* word : {"abc", "bcab", "abcabc", "bca", "aab", "dabcd", "abcabcabcabcabcabcabcabc"}) {
      Ids found;
      model.encode(word, found);
      EXPECT_EQ(found, merged(model, word)) << word;
      found.clear();
      cache.encode(word, found);
      EXPECT_EQ(found, merged(model, word)) << word;
    }
  }
}

// Cuts that PairCuts finds leave the ids of the whole.
TEST(PieceCache, TextOverCharactersIsThatOfTheWhole) {
  const auto table = read("llama2.json");
  ASSERT_TRUE(table->spaced);
  const Tokenizer tokenizer = Tokenizer::parse(golden_text("llama2.json"), "llama2.json");
  std::mt19937 dice(2);
  for (int round = 0; round < 400; ++round) {
    std::string text;
    for (unsigned i = dice() % 60; i > 0; --i) {
      text += dice() % 5 == 0 ? std::string(kSpaceSymbol) : random_word(dice);
      text += dice() % 9 == 0 ? "\n" : "";
    }
    const std::string spelled = normalize(table->normalizer, text);
    ASSERT_EQ(tokenizer.encode(text, {.add_special = false, .plain = true}), merged(table->model, spelled)) << text;
  }
}

TEST(PieceCaches, ThreadsGetTheSameIds) {
  const Tokenizer tokenizer = Tokenizer::parse(golden_text("llama3.json"), "llama3.json");
  std::mt19937 dice(4);
  std::string text;
  for (int i = 0; i < 5000; ++i) {
    text += random_word(dice);
  }
  const Ids expected = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 8; ++round) {
        wrong += tokenizer.encode(text) == expected ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace caravan::tokenizer

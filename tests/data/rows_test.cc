#include "caravan/data/rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan::data {
namespace {

using Ids = std::vector<std::int32_t>;
using Lists = std::vector<Ids>;
using test::message_of;
constexpr std::int32_t kNo = kIgnoredTarget;

Ids counted(std::int32_t from, std::int64_t count) {
  Ids ids(static_cast<std::size_t>(count));
  std::iota(ids.begin(), ids.end(), from);
  return ids;
}

// Documents of these lengths; every id stands once.
Lists distinct(const std::vector<std::int64_t>& lengths, std::int32_t from = 0) {
  Lists lists;
  for (const std::int64_t length : lengths) {
    lists.push_back(counted(from, length));
    from += static_cast<std::int32_t>(length);
  }
  return lists;
}

void expect_row(const Row& row, const Ids& ids, const Ids& targets, const std::vector<std::int64_t>& lengths) {
  EXPECT_EQ(row.ids, ids);
  EXPECT_EQ(row.targets, targets);
  EXPECT_EQ(row.lengths, lengths);
}

void expect_equal(const Row& row, const Row& other) {
  expect_row(row, other.ids, other.targets, other.lengths);
}

// A row from its sequences, by the rule of rows.h.
Row row_of(const Lists& sequences, std::size_t seq_len) {
  Row row;
  for (const Ids& sequence : sequences) {
    for (std::size_t i = 0; i < sequence.size(); ++i) {
      row.ids.push_back(sequence[i]);
      row.targets.push_back(i + 1 < sequence.size() ? sequence[i + 1] : kNo);
    }
    row.lengths.push_back(static_cast<std::int64_t>(sequence.size()));
  }
  row.ids.resize(seq_len, -1);
  row.targets.resize(seq_len, kNo);
  return row;
}

// One epoch cut the slow way, id by id for kSplit and document by document for kWhole.
std::vector<Row> plain_rows(const Lists& documents, std::size_t seq_len, Packing packing) {
  std::vector<Row> rows;
  Lists sequences;
  std::size_t used = 0;
  const auto close = [&] {
    if (used > 0) {
      rows.push_back(row_of(sequences, seq_len));
    }
    sequences.clear();
    used = 0;
  };
  for (const Ids& document : documents) {
    if (packing == Packing::kWhole && used + document.size() > seq_len) {
      close();
    }
    bool begins = true;
    for (const std::int32_t id : document) {
      if (used == seq_len) {
        close();
        begins = true;
      }
      if (begins) {
        sequences.emplace_back();
      }
      sequences.back().push_back(id);
      begins = false;
      ++used;
    }
  }
  close();
  return rows;
}

std::vector<Row> rows_of_epoch(const Rows& rows, std::int64_t epoch) {
  std::vector<Row> result;
  std::int64_t k = 0;
  while (rows.epoch_of(k) < epoch) {
    ++k;
  }
  for (; rows.epoch_of(k) == epoch; ++k) {
    result.push_back(rows.row(k));
  }
  return result;
}

Ids ids_of(const std::vector<Row>& rows) {
  Ids ids;
  for (const Row& row : rows) {
    std::ranges::copy_if(row.ids, std::back_inserter(ids), [](std::int32_t id) { return id >= 0; });
  }
  return ids;
}

TEST(Rows, FillOneOf123WithDocumentsOf33And90) {
  const Rows rows({Documents::of(distinct({33, 90}))}, {.seq_len = 123});
  EXPECT_EQ(rows.rows_per_epoch(), 1);
  Ids targets = counted(1, 123);
  targets[32] = kNo;
  targets[122] = kNo;
  expect_row(rows.row(0), counted(0, 123), targets, {33, 90});
  expect_row(rows.row(1), counted(0, 123), targets, {33, 90});  // the next epoch
}

TEST(Rows, SplitADocumentIntoANewSequenceOfTheNextRow) {
  const Rows rows({Documents::of({{1, 2, 3}, {}, {4, 5, 6, 7, 8, 9, 10, 11}, {12}})}, {.seq_len = 5, .epochs = 1});
  EXPECT_EQ(rows.total_rows(), 3);
  expect_row(rows.row(0), {1, 2, 3, 4, 5}, {2, 3, kNo, 5, kNo}, {3, 2});
  expect_row(rows.row(1), {6, 7, 8, 9, 10}, {7, 8, 9, 10, kNo}, {5});
  expect_row(rows.row(2), {11, 12, -1, -1, -1}, {kNo, kNo, kNo, kNo, kNo}, {1, 1});
  expect_row(rows.row(3), {-1, -1, -1, -1, -1}, {kNo, kNo, kNo, kNo, kNo}, {});
  expect_row(rows.row(1'000'000'000'000), {-1, -1, -1, -1, -1}, {kNo, kNo, kNo, kNo, kNo}, {});
}

TEST(Rows, KeepDocumentsWholeWherePossible) {
  const Rows rows({Documents::of({{1, 2, 3}, {4, 5, 6}, {}, {7}, {8, 9, 10, 11, 12, 13, 14}, {15, 16}, {17}})},
                  {.seq_len = 5, .packing = Packing::kWhole, .epochs = 2});
  EXPECT_EQ(rows.rows_per_epoch(), 4);
  EXPECT_EQ(rows.total_rows(), 8);
  for (const std::int64_t begin : {0, 4}) {
    expect_row(rows.row(begin), {1, 2, 3, -1, -1}, {2, 3, kNo, kNo, kNo}, {3});
    expect_row(rows.row(begin + 1), {4, 5, 6, 7, -1}, {5, 6, kNo, kNo, kNo}, {3, 1});
    expect_row(rows.row(begin + 2), {8, 9, 10, 11, 12}, {9, 10, 11, 12, kNo}, {5});
    expect_row(rows.row(begin + 3), {13, 14, 15, 16, 17}, {14, kNo, 16, kNo, kNo}, {2, 2, 1});
    EXPECT_EQ(rows.epoch_of(begin + 3), begin / 4);
  }
  EXPECT_TRUE(rows.row(8).lengths.empty());
}

TEST(Rows, TakeSeveralSetsOneAfterTheOther) {
  const Rows rows({Documents::of({{1, 2}}), Documents::of({}), Documents::of({{3}, {4, 5}})}, {.seq_len = 5});
  EXPECT_EQ(rows.tokens(), 5);
  expect_row(rows.row(0), {1, 2, 3, 4, 5}, {2, kNo, kNo, 5, kNo}, {2, 1, 2});
}

TEST(Rows, EqualThePlainCuttingOfRandomDocuments) {
  std::mt19937 random(3);
  for (int run = 0; run < 400; ++run) {
    std::vector<std::int64_t> lengths(1 + random() % 40);
    for (std::int64_t& length : lengths) {
      length = static_cast<std::int64_t>(random() % (random() % 4 == 0 ? 40 : 9));
    }
    const Lists lists = distinct(lengths);
    const Documents documents = Documents::of(lists);
    const std::int64_t seq_len = 1 + static_cast<std::int64_t>(random() % 12);
    if (documents.tokens() < seq_len) {
      continue;
    }
    const Packing packing = random() % 2 == 0 ? Packing::kSplit : Packing::kWhole;
    const Rows rows({documents}, {.seq_len = seq_len, .packing = packing, .epochs = 3});
    const std::vector<Row> expected = plain_rows(lists, static_cast<std::size_t>(seq_len), packing);
    const std::int64_t count = static_cast<std::int64_t>(expected.size());
    ASSERT_EQ(rows.rows_per_epoch(), count);
    ASSERT_EQ(rows.total_rows(), 3 * count);
    for (std::int64_t k = 0; k < 3 * count; ++k) {
      expect_equal(rows.row(k), expected[static_cast<std::size_t>(k % count)]);
      EXPECT_EQ(rows.epoch_of(k), k / count);
    }
    // And asked for in any order.
    for (int i = 0; i < 20; ++i) {
      const std::int64_t k = static_cast<std::int64_t>(random()) % (3 * count + 2);
      const Row padding = row_of({}, static_cast<std::size_t>(seq_len));
      expect_equal(rows.row(k), k < 3 * count ? expected[static_cast<std::size_t>(k % count)] : padding);
    }
  }
}

TEST(Rows, GiveEveryIdOnceAnEpochHoweverShuffled) {
  std::mt19937 random(4);
  for (const Packing packing : {Packing::kSplit, Packing::kWhole}) {
    std::vector<std::int64_t> lengths(300);
    for (std::int64_t& length : lengths) {
      length = static_cast<std::int64_t>(random() % 30);
    }
    const Documents documents = Documents::of(distinct(lengths));
    const RowOptions options = {.seq_len = 17, .packing = packing, .shuffle = true, .seed = 9, .epochs = 3};
    const Rows rows({documents}, options);
    std::vector<Ids> epochs;
    std::int64_t count = 0;
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      const std::vector<Row> of_epoch = rows_of_epoch(rows, epoch);
      count += static_cast<std::int64_t>(of_epoch.size());
      epochs.push_back(ids_of(of_epoch));
      Ids sorted = epochs.back();
      std::ranges::sort(sorted);
      EXPECT_EQ(sorted, counted(0, documents.tokens()));
      EXPECT_NE(epochs.back(), sorted) << "not shuffled";
    }
    EXPECT_EQ(rows.total_rows(), count);
    EXPECT_NE(epochs[0], epochs[1]);
    EXPECT_NE(epochs[1], epochs[2]);
    RowOptions other = options;
    other.seed = 10;
    EXPECT_NE(ids_of(rows_of_epoch(Rows({documents}, other), 0)), epochs[0]);
  }
}

// Every position is as likely for every document: 24 orders of four documents, 4,800 epochs, 200 expected of each.  The
// bound is six deviations (sqrt(4800 * 1/24 * 23/24) = 13.8).
TEST(Rows, ShuffleWithoutPreference) {
  const Rows rows({Documents::of({{0}, {1}, {2}, {3}})}, {.seq_len = 4, .shuffle = true});
  std::map<Ids, int> seen;
  for (std::int64_t k = 0; k < 4800; ++k) {
    ++seen[rows.row(k).ids];
  }
  EXPECT_EQ(seen.size(), 24U);
  for (const auto& [order, count] : seen) {
    EXPECT_NEAR(count, 200, 83);
  }
}

// One long document would otherwise fill a step with neighbouring pages.
TEST(Rows, ShuffleTheRowsThatOneDocumentFills) {
  Ids text(40);
  std::iota(text.begin(), text.end(), 0);
  const Rows rows({Documents::of({text})}, {.seq_len = 4, .shuffle = true, .epochs = 1});
  std::vector<std::int32_t> firsts;
  for (std::int64_t k = 0; k < rows.total_rows(); ++k) {
    const Ids ids = rows.row(k).ids;
    firsts.push_back(ids.front());
    EXPECT_EQ(ids.back(), ids.front() + 3);
  }
  EXPECT_FALSE(std::ranges::is_sorted(firsts));
  std::ranges::sort(firsts);
  EXPECT_EQ(firsts, (Ids{0, 4, 8, 12, 16, 20, 24, 28, 32, 36}));
}

// The order is part of a checkpoint's meaning: it may not change from version to version.
TEST(Rows, KeepTheirShuffledOrderForever) {
  const Rows rows({Documents::of({{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}})},
                  {.seq_len = 8, .shuffle = true, .seed = 42});
  EXPECT_EQ(rows.row(0).ids, (Ids{1, 4, 5, 3, 7, 2, 6, 0}));
  EXPECT_EQ(rows.row(1).ids, (Ids{3, 0, 1, 4, 2, 7, 5, 6}));
  const Rows single({Documents::of({{0, 1, 2, 3, 4, 5, 6, 7}})}, {.seq_len = 1, .shuffle = true, .seed = 42});
  Ids order;
  for (std::int64_t k = 0; k < 8; ++k) {
    order.push_back(single.row(k).ids.front());
  }
  EXPECT_EQ(order, (Ids{3, 4, 7, 0, 1, 5, 6, 2}));
}

std::vector<Documents> mixed_sets(std::mt19937& random) {
  std::vector<Documents> sets;
  std::int32_t from = 0;
  for (const int most : {50, 7, 20}) {
    std::vector<std::int64_t> lengths(60);
    for (std::int64_t& length : lengths) {
      length = static_cast<std::int64_t>(random() % static_cast<unsigned>(most));
    }
    sets.push_back(Documents::of(distinct(lengths, from)));
    from += 100'000;
  }
  return sets;
}

TEST(Rows, AreTheSameFromWhereverTheyBegin) {
  std::mt19937 random(6);
  const std::vector<Documents> sets = mixed_sets(random);
  for (const Packing packing : {Packing::kSplit, Packing::kWhole}) {
    for (const bool shuffle : {false, true}) {
      for (const std::vector<double>& weights : {std::vector<double>{}, std::vector<double>{1.0, 0.5, 2.5}}) {
        const RowOptions options = {.seq_len = 13, .packing = packing, .shuffle = shuffle, .weights = weights};
        const Rows rows(sets, options);
        std::vector<Row> expected;
        for (std::int64_t k = 0; k < 700; ++k) {
          expected.push_back(rows.row(k));
        }
        for (int i = 0; i < 40; ++i) {
          const std::int64_t k = static_cast<std::int64_t>(random() % 690);
          const Rows fresh(sets, options);
          for (std::int64_t j = k; j < k + 10; j += 3) {
            expect_equal(fresh.row(j), expected[static_cast<std::size_t>(j)]);
            expect_equal(rows.row(j), expected[static_cast<std::size_t>(j)]);
          }
        }
      }
    }
  }
}

// Shares 2/3 and 1/3.  How far the two are behind before each choice, and what is taken:
//   0, 0 the first set by order; -1, 1 the second; 1/3, -1/3 the first; -2/3, 2/3 the second; 4/3, -4/3 the first, from
//   its beginning; 1/3, -1/3 the first.
TEST(Rows, MixByTheFurthestBehindItsShare) {
  const Rows rows({Documents::of({{1, 2, 3}, {4, 5, 6}}), Documents::of({{101, 102}, {103, 104, 105}})},
                  {.seq_len = 5, .weights = {2.0, 1.0}});
  expect_row(rows.row(0), {1, 2, 3, 101, 102}, {2, 3, kNo, 102, kNo}, {3, 2});
  expect_row(rows.row(1), {4, 5, 6, 103, 104}, {5, 6, kNo, 104, kNo}, {3, 2});
  expect_row(rows.row(2), {105, 1, 2, 3, 4}, {kNo, 2, 3, kNo, kNo}, {1, 3, 1});
}

TEST(Rows, KeepTheSharesWithinOneDocument) {
  std::mt19937 random(7);
  const std::vector<Documents> sets = mixed_sets(random);
  const std::vector<double> weights = {0.2, 0.7, 0.1};
  const std::vector<std::int64_t> longest = {49, 6, 19};
  const Rows rows(sets, {.seq_len = 1, .shuffle = true, .weights = weights});  // a row is an id
  std::vector<std::int64_t> given(3);
  for (std::int64_t k = 0; k < 20'000; ++k) {
    ++given[static_cast<std::size_t>(rows.row(k).ids[0] / 100'000)];
    for (std::size_t set = 0; set < 3; ++set) {
      // Never ahead by more than a document of its own; never behind by more than those of the others.
      const double ahead = static_cast<double>(given[set]) - weights[set] * static_cast<double>(k + 1);
      ASSERT_LE(ahead, static_cast<double>(longest[set]));
      ASSERT_GE(ahead, -static_cast<double>(49 + 6 + 19 - longest[set]));
    }
  }
}

TEST(Rows, LoopOverEachMixedSetInItsOwnEpochs) {
  std::mt19937 random(8);
  const std::vector<Documents> sets = mixed_sets(random);
  const Rows rows(sets, {.seq_len = 1, .shuffle = true, .weights = {1.0, 1.0, 1.0}});
  std::vector<Ids> streams(3);
  for (std::int64_t k = 0; k < 12'000; ++k) {
    const std::int32_t id = rows.row(k).ids[0];
    streams[static_cast<std::size_t>(id / 100'000)].push_back(id);
  }
  for (std::size_t set = 0; set < 3; ++set) {
    const std::int64_t tokens = sets[set].tokens();
    std::int64_t epochs = 0;
    for (auto begin = streams[set].begin(); streams[set].end() - begin >= tokens; begin += tokens) {
      Ids epoch(begin, begin + tokens);
      std::ranges::sort(epoch);
      ASSERT_EQ(epoch, counted(static_cast<std::int32_t>(set) * 100'000, tokens)) << set << " " << epochs;
      ++epochs;
    }
    EXPECT_GE(epochs, 2);
  }
  EXPECT_EQ(rows.epoch_of(0), 0);
  EXPECT_EQ(rows.epoch_of(rows.rows_per_epoch()), 1);
  EXPECT_EQ(rows.total_rows(), -1);
}

TEST(Rows, MayBeAskedBySeveralThreads) {
  std::mt19937 random(9);
  const Rows rows(mixed_sets(random), {.seq_len = 11, .shuffle = true});
  std::vector<Row> expected;
  for (std::int64_t k = 0; k < 300; ++k) {
    expected.push_back(rows.row(k));
  }
  std::vector<std::vector<Row>> found(3);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < found.size(); ++t) {
    threads.emplace_back([&, t] {
      for (std::int64_t k = static_cast<std::int64_t>(t); k < 300; k += 3) {
        found[t].push_back(rows.row(k));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (std::size_t k = 0; k < 300; ++k) {
    expect_equal(found[k % 3][k / 3], expected[k]);
  }
}

TEST(Rows, RefuseTooLittleTextAndImpossibleOptions) {
  const Documents small = Documents::of({{1, 2}, {3}});
  const Documents large = Documents::of({counted(0, 2000)});
  const auto input = [](std::vector<Documents> sets, const RowOptions& options) {
    return message_of<InputError>([&] { Rows(sets, options); });
  };
  const std::string one = input({small}, {.seq_len = 1024});
  EXPECT_NE(one.find("the data set holds 3 tokens, less than one row of seq_len 1,024"), std::string::npos) << one;
  EXPECT_NE(input({small, small}, {.seq_len = 7}).find("the 2 data sets hold 6 tokens"), std::string::npos);
  EXPECT_EQ(input({small, large}, {.seq_len = 1024}), "");  // together there is enough
  EXPECT_NE(input({large, small}, {.seq_len = 1024, .weights = {1, 1}}).find("data set 2 of 2 holds 3 tokens"),
            std::string::npos);
  EXPECT_NE(input({}, {}).find("no data set"), std::string::npos);
  const std::vector<RowOptions> impossible = {
      {.seq_len = 0},
      {.seq_len = 4, .epochs = -1},
      {.seq_len = 4, .weights = {1.0}},
      {.seq_len = 4, .weights = {1.0, 0.0}},
      {.seq_len = 4, .weights = {1.0, -1.0}},
      {.seq_len = 4, .weights = {1.0, std::numeric_limits<double>::quiet_NaN()}},
      {.seq_len = 4, .weights = {1.0, std::numeric_limits<double>::infinity()}},
      {.seq_len = 4, .epochs = 1, .weights = {1.0, 1.0}},
  };
  for (const RowOptions& options : impossible) {
    EXPECT_THROW(Rows({large, large}, options), ConfigError);
  }
  EXPECT_THROW(Rows({large}, {.seq_len = 4}).row(-1), InputError);
}

}  // namespace
}  // namespace caravan::data

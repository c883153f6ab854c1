#include "caravan/data/loader.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "caravan/base/error.h"

namespace caravan::data {
namespace {

constexpr std::int64_t kSeqLen = 10;

Documents some_documents() {
  std::mt19937 random(2);
  std::vector<std::vector<std::int32_t>> lists(80);
  std::int32_t next = 0;
  for (std::vector<std::int32_t>& list : lists) {
    list.resize(random() % 25);
    std::iota(list.begin(), list.end(), next);
    next += static_cast<std::int32_t>(list.size());
  }
  return Documents::of(lists);
}

RowOptions some_options() {
  return {.seq_len = kSeqLen, .packing = Packing::kWhole, .shuffle = true};
}

void expect_equal(const MicroBatch& batch, const MicroBatch& other) {
  EXPECT_EQ(batch.ids, other.ids);
  EXPECT_EQ(batch.targets, other.targets);
  EXPECT_EQ(batch.layout, other.layout);
}

TEST(Loader, PutsRowsSideBySideWithTheirPadding) {
  const Rows rows({Documents::of({{1, 2}, {3, 4}, {5, 6, 7}})}, {.seq_len = 5, .packing = Packing::kWhole});
  Loader loader(rows, {.micro_batch_rows = 2, .prefetch = 0});
  const StepBatch step = loader.next();
  ASSERT_EQ(step.micro_batches.size(), 1U);
  const MicroBatch& batch = step.micro_batches[0];
  EXPECT_EQ(batch.ids, (std::vector<std::int32_t>{1, 2, 3, 4, -1, 5, 6, 7, -1, -1}));
  EXPECT_EQ(batch.targets, (std::vector<std::int32_t>{2, -100, 4, -100, -100, 6, 7, -100, -100, -100}));
  EXPECT_EQ(batch.layout, (SequenceLayout{{{0, 2, 0}, {2, 2, 0}, {5, 3, 0}}, 10}));
  EXPECT_NO_THROW(check(batch.layout));
  EXPECT_EQ(positions(batch.layout), (std::vector<std::int32_t>{0, 1, 0, 1, -1, 0, 1, 2, -1, -1}));
  EXPECT_EQ(step.next_row, 2);
  EXPECT_EQ(step.epoch, 0);
  EXPECT_EQ(loader.next().epoch, 1);
}

// The rows that `ranks` ranks see in `steps` steps from `next_row` on, put back into the order of their numbers.
std::vector<std::vector<std::int32_t>> rows_of_ranks(const Rows& rows, int ranks, const LoaderOptions& base,
                                                     int steps) {
  const std::int64_t per_step = base.micro_batches * base.micro_batch_rows * ranks;
  std::vector<std::vector<std::int32_t>> result(static_cast<std::size_t>(per_step * steps));
  for (int rank = 0; rank < ranks; ++rank) {
    LoaderOptions options = base;
    options.rank = rank;
    options.ranks = ranks;
    Loader loader(rows, options);
    for (int s = 0; s < steps; ++s) {
      const StepBatch step = loader.next();
      EXPECT_EQ(step.next_row, base.next_row + (s + 1) * per_step);
      for (std::size_t m = 0; m < step.micro_batches.size(); ++m) {
        const std::vector<std::int32_t>& ids = step.micro_batches[m].ids;
        for (std::int64_t j = 0; j < base.micro_batch_rows; ++j) {
          const std::int64_t number =
              s * per_step + (static_cast<std::int64_t>(m) * base.micro_batch_rows + j) * ranks + rank;
          result[static_cast<std::size_t>(number)].assign(ids.begin() + j * kSeqLen, ids.begin() + (j + 1) * kSeqLen);
        }
      }
    }
  }
  return result;
}

TEST(Loader, GivesRowKToRankKModRanks) {
  const Rows rows({some_documents()}, some_options());
  for (const std::int64_t next_row : {0, 5, 103}) {
    std::vector<std::vector<std::int32_t>> expected;
    for (std::int64_t k = next_row; k < next_row + 48; ++k) {
      expected.push_back(rows.row(k).ids);
    }
    // 48 rows as steps of 12 rows in different ways.
    EXPECT_EQ(rows_of_ranks(rows, 1, {.micro_batch_rows = 12, .next_row = next_row}, 4), expected);
    EXPECT_EQ(rows_of_ranks(rows, 1, {.micro_batch_rows = 3, .micro_batches = 4, .next_row = next_row}, 4), expected);
    EXPECT_EQ(rows_of_ranks(rows, 2, {.micro_batch_rows = 2, .micro_batches = 3, .next_row = next_row}, 4), expected);
    EXPECT_EQ(rows_of_ranks(rows, 4, {.micro_batch_rows = 3, .next_row = next_row, .prefetch = 0}, 4), expected);
    EXPECT_EQ(rows_of_ranks(rows, 3, {.micro_batches = 4, .next_row = next_row, .prefetch = 5}, 4), expected);
  }
}

TEST(Loader, GoesOnFromItsStateOnAnyNumberOfRanks) {
  const Rows rows({some_documents()}, some_options());
  Loader whole(rows, {.micro_batch_rows = 4, .micro_batches = 2});
  std::vector<StepBatch> steps;
  for (int i = 0; i < 40; ++i) {
    steps.push_back(whole.next());
  }
  for (std::size_t cut = 0; cut + 1 < steps.size(); cut += 7) {
    Loader rest(rows, {.micro_batch_rows = 4, .micro_batches = 2, .next_row = steps[cut].next_row});
    for (std::size_t i = cut + 1; i < steps.size(); ++i) {
      const StepBatch step = rest.next();
      EXPECT_EQ(step.next_row, steps[i].next_row);
      EXPECT_EQ(step.epoch, steps[i].epoch);
      for (std::size_t m = 0; m < 2; ++m) {
        expect_equal(step.micro_batches[m], steps[i].micro_batches[m]);
      }
    }
  }
}

TEST(Loader, GivesPaddingAfterTheLastRow) {
  RowOptions options = some_options();
  options.epochs = 1;
  const Rows rows({some_documents()}, options);
  Loader loader(rows, {.micro_batch_rows = 2, .next_row = rows.total_rows() - 1});
  const StepBatch last = loader.next();
  EXPECT_GE(last.micro_batches[0].ids[0], 0);
  EXPECT_EQ(last.micro_batches[0].ids[kSeqLen], -1);
  for (int i = 0; i < 5; ++i) {
    const StepBatch step = loader.next();
    EXPECT_EQ(valid_targets(step.micro_batches), 0);
    EXPECT_TRUE(step.micro_batches[0].layout.sequences.empty());
    EXPECT_EQ(step.micro_batches[0].layout.rows, 2 * kSeqLen);
  }
}

TEST(Loader, MakesNoMoreStepsAheadThanAsked) {
  const Rows rows({some_documents()}, some_options());
  for (int i = 0; i < 200; ++i) {  // ended at every moment of the thread's work
    Loader loader(rows, {.prefetch = 1 + i % 3});
    for (int j = 0; j < i % 5; ++j) {
      loader.next();
    }
  }
  Loader loader(rows, {.prefetch = 2});
  EXPECT_EQ(loader.waited_seconds(), 0.0);
  loader.next();
  EXPECT_GT(loader.waited_seconds(), 0.0);
}

// Row numbers that run over 2^63 are the one fault that rows can have after they were made.
TEST(Loader, ThrowsInNextWhatWentWrongInTheThread) {
  const Rows rows({some_documents()}, {.seq_len = kSeqLen});
  for (const int prefetch : {0, 2}) {
    LoaderOptions options = {.prefetch = prefetch};
    options.next_row = INT64_MAX - 1;
    Loader loader(rows, options);
    EXPECT_NO_THROW(loader.next());
    EXPECT_THROW(loader.next(), Error);
    EXPECT_THROW(loader.next(), Error);
  }
}

TEST(Loader, RefusesOptionsThatContradict) {
  const Rows rows({some_documents()}, some_options());
  for (const LoaderOptions& options : std::vector<LoaderOptions>{{.micro_batch_rows = 0},
                                                                 {.micro_batches = 0},
                                                                 {.rank = 2, .ranks = 2},
                                                                 {.rank = -1},
                                                                 {.ranks = 0},
                                                                 {.next_row = -1},
                                                                 {.prefetch = -1}}) {
    EXPECT_THROW(Loader(rows, options), ConfigError);
  }
}

}  // namespace
}  // namespace caravan::data

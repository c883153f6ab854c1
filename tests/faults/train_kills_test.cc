// Runs are killed at random moments, many of them inside a save, and run again until they finish: the bits are those of
// a run that nobody disturbed.
#include <gtest/gtest.h>

#include <cstdio>
#include <random>

#include "tests/faults/train_run.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr int kSteps = 40;

const RunSettings kRuns[] = {{.steps = kSteps, .interval = 1, .async = false, .cpu = true},
                             {.steps = kSteps, .interval = 3, .async = false, .cpu = true},
                             {.steps = kSteps, .interval = 1, .async = true, .cpu = true},
                             {.steps = kSteps, .interval = 3, .async = true, .cpu = true}};

// How long a run takes, and how often it changes the disk below its checkpoints.
struct Extent {
  std::int64_t milliseconds = 0;
  std::int64_t calls = 0;
};

Extent extent_of(const RunSettings& settings) {
  const RunScratch scratch;
  const auto begin = std::chrono::steady_clock::now();
  const ChildEnd end = train(scratch.run(), settings, {.under = scratch.checkpoints()});
  const auto passed = std::chrono::steady_clock::now() - begin;
  Extent extent{std::chrono::duration_cast<milliseconds>(passed).count(), 0};
  for (const char* kind : {"open", "write", "fsync", "rename", "mkdir", "unlink", "truncate"}) {
    extent.calls += end.counts.at(kind);
  }
  return extent;
}

TEST(TrainingKilled, ThirtyTimesAtRandomMomentsGivesTheBitsOfAnUndisturbedRun) {
  undisturbed(kRuns[0]);
  std::vector<Extent> extents;
  for (const RunSettings& settings : kRuns) {
    extents.push_back(extent_of(settings));
  }
  std::mt19937_64 random(20);
  const auto below = [&random](std::int64_t limit) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(std::max<std::int64_t>(1, limit)));
  };
  int kills = 0;
  int inside = 0;
  int resumed = 0;
  for (int folder = 0; folder < 60 && (kills < 30 || inside < 10); ++folder) {
    const RunScratch scratch;
    const auto which = static_cast<std::size_t>(folder) % std::size(kRuns);
    const RunSettings& settings = kRuns[which];
    SCOPED_TRACE("folder " + std::to_string(folder));
    for (std::int64_t more = below(3); more >= 0; --more) {
      FaultPlan plan{.under = scratch.checkpoints(), .trace = scratch.path() / ("trace" + std::to_string(more))};
      ChildLimits limits;
      if (kills % 2 == 0) {  // by the clock
        limits.signal = SIGKILL;
        limits.signal_after = milliseconds(20 + below(extents[which].milliseconds));
      } else {  // by the calls, of which most are inside a save
        plan.call = "any";
        plan.kill_at = 1 + below(extents[which].calls);
      }
      const ChildEnd end = train(scratch.run(), settings, plan, limits);
      if (end.signal != SIGKILL) {
        ASSERT_EQ(ended_badly(end), "");
        break;  // it was done before
      }
      ++kills;
      inside += inside_a_save(plan.trace) ? 1 : 0;
      const Newest newest = newest_checkpoint(scratch.run());
      EXPECT_EQ(newest.problem, "");
      resumed += newest.step > 0 ? 1 : 0;
      // A save that waits is over before the next step; one beside the training, before the save after it.
      EXPECT_GE(newest.step, last_line(scratch.run()) - 1 - settings.interval * (settings.async ? 2 : 1));
    }
    EXPECT_EQ(wrong_after_rerun(scratch.run(), settings), "");
  }
  std::printf("%d kills, %d of them inside a save, %d with a checkpoint to go on from\n", kills, inside, resumed);
  EXPECT_GE(kills, 30);
  EXPECT_GE(inside, 10);
  EXPECT_GE(resumed, 5);
}

}  // namespace
}  // namespace caravan::test

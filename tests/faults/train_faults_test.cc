// Every call of a training run fails once, and its allocations, and its disk fills: it says so in one sentence or goes
// on, the checkpoints that were saved stay, and the same command run again gives the bits of an undisturbed run.
#include <gtest/gtest.h>

#include <random>

#include "tests/faults/train_run.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

constexpr int kSteps = 3;

RunSettings every_step_saved() {
  return {.steps = kSteps, .interval = 1};
}

// A folder where the run starts: empty, or with what a run left that was killed while it wrote step 3's checkpoint.
enum class Start { kFresh, kKilled };

const fs::path& killed_run() {
  static const RunScratch scratch;
  static const fs::path folder = [] {
    // 12 files are fsynced for the checkpoints of two steps; somewhere in the third's
    for (std::int64_t at = 1;; ++at) {
      fs::remove_all(scratch.run());
      const ChildEnd end =
          train(scratch.run(), every_step_saved(), {.call = "fsync", .kill_at = at, .under = scratch.checkpoints()});
      if (end.signal != SIGKILL) {
        throw std::runtime_error("no kill left a save half done: " + end.err);
      }
      if (newest_checkpoint(scratch.run()).step == kSteps - 1 && !leftovers(scratch.run()).empty()) {
        return scratch.run();
      }
    }
  }();
  return folder;
}

void prepare(const fs::path& folder, Start start) {
  if (start == Start::kKilled) {
    fs::copy(killed_run(), folder, fs::copy_options::recursive);
  }
}

// What is wrong with a run of that plan, or "".
std::string wrong_with(Start start, const FaultPlan& plan) {
  const RunScratch scratch;
  prepare(scratch.run(), start);
  FaultPlan here = plan;
  if (!plan.under.empty()) {
    here.under = scratch.run();
  }
  const ChildEnd end = train(scratch.run(), every_step_saved(), here);
  std::string wrong = ended_badly(end);
  const Newest newest = newest_checkpoint(scratch.run());
  // Saving waits here: whoever has the line of step N has saved step N - 1.
  const std::int64_t least =
      std::max<std::int64_t>(last_line(scratch.run()) - 1, start == Start::kKilled ? kSteps - 1 : -1);
  if (wrong.empty()) {
    wrong = newest.problem;
  }
  if (wrong.empty() && newest.step < std::max<std::int64_t>(least, end.status == 0 ? kSteps : -1) && least > 0) {
    wrong = "the newest checkpoint is of step " + std::to_string(newest.step) + ", and step " + std::to_string(least) +
            " was saved";
  }
  if (wrong.empty()) {
    wrong = wrong_after_rerun(scratch.run(), every_step_saved());
  }
  return wrong.empty() ? "" : plan.call + " " + std::to_string(plan.fail_at) + ": " + wrong + "\n  (" + end.err + ")";
}

// `under`: only calls on files of the run's folder.
std::int64_t calls_of(Start start, const std::string& kind, bool under) {
  const RunScratch scratch;
  prepare(scratch.run(), start);
  const ChildEnd end = train(scratch.run(), every_step_saved(), {.under = under ? scratch.run() : fs::path()});
  return end.status == 0 ? end.counts.at(kind) : -1;
}

class EveryCall : public testing::TestWithParam<const char*> {};

TEST_P(EveryCall, OfAFreshRunMayFailOnce) {
  const std::int64_t calls = calls_of(Start::kFresh, GetParam(), /*under=*/false);
  ASSERT_GT(calls, 3);
  const auto complaints =
      for_all(calls, [&](std::int64_t i) { return wrong_with(Start::kFresh, {.call = GetParam(), .fail_at = i + 1}); });
  EXPECT_TRUE(complaints.empty()) << in_lines(complaints);
}

TEST_P(EveryCall, OfAResumedRunMayFailOnceOnItsFiles) {
  const std::int64_t calls = calls_of(Start::kKilled, GetParam(), /*under=*/true);
  ASSERT_GT(calls, 0);
  const auto complaints = for_all(calls, [&](std::int64_t i) {
    return wrong_with(Start::kKilled, {.call = GetParam(), .fail_at = i + 1, .under = "the run's folder"});
  });
  EXPECT_TRUE(complaints.empty()) << in_lines(complaints);
}

INSTANTIATE_TEST_SUITE_P(TrainingWithFaults, EveryCall,
                         testing::Values("open", "write", "fsync", "rename", "mkdir", "mmap", "unlink", "truncate",
                                         "close"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TrainingWithFaults, TwoHundredAllocationsMayFail) {
  const std::int64_t calls = calls_of(Start::kFresh, "new", /*under=*/false);
  constexpr std::int64_t kFailures = 200;
  ASSERT_GT(calls, kFailures);
  std::mt19937_64 random(1);
  const auto complaints = for_all(kFailures, [&, seed = random()](std::int64_t i) {
    std::mt19937_64 mine(seed + static_cast<std::uint64_t>(i));
    const std::int64_t begin = calls * i / kFailures;
    const std::int64_t end = calls * (i + 1) / kFailures;
    const std::int64_t at = begin + 1 + static_cast<std::int64_t>(mine() % static_cast<std::uint64_t>(end - begin));
    return wrong_with(i % 4 == 0 ? Start::kKilled : Start::kFresh, {.call = "new", .fail_at = at});
  });
  EXPECT_TRUE(complaints.empty()) << in_lines(complaints);
}

// A power cut keeps only what was made durable, in any order: no test can cut the power, but the order of calls shows.
TEST(TrainingWithFaults, TheLinesOfAStepAreDurableBeforeItsCheckpoint) {
  const RunScratch scratch;
  const fs::path trace = scratch.path() / "trace";
  ASSERT_EQ(train(scratch.run(), every_step_saved(), {.under = scratch.run(), .trace = trace}).status, 0);
  std::istringstream lines(read_file(trace));
  int durable = 0;  // lines of metrics.jsonl, one a step
  int saved = 0;
  for (std::string line; std::getline(lines, line);) {
    durable += line.starts_with("fsync ") && line.ends_with("/metrics.jsonl") ? 1 : 0;
    if (line.starts_with("rename ") && line.ends_with("/COMPLETE")) {
      ++saved;
      EXPECT_GE(durable, saved);
    }
  }
  EXPECT_EQ(saved, kSteps);
  EXPECT_EQ(durable, kSteps);
}

TEST(TrainingWithFaults, TheComparisonNoticesAnotherSeedAndALineThatIsMissing) {
  const RunScratch scratch;
  RunSettings other = every_step_saved();
  other.more = {"--debug.seed", "43"};
  ASSERT_EQ(train(scratch.run(), other).status, 0);
  EXPECT_NE(difference(scratch.run(), every_step_saved()), "");
  fs::remove_all(scratch.run());
  ASSERT_EQ(train(scratch.run(), every_step_saved()).status, 0);
  EXPECT_EQ(difference(scratch.run(), every_step_saved()), "");
  const std::string lines = read_file(scratch.run() / "metrics.jsonl");
  write_file(scratch.run() / "metrics.jsonl", lines.substr(lines.find('\n') + 1));
  EXPECT_NE(difference(scratch.run(), every_step_saved()), "");
  write_file(scratch.run() / "metrics.jsonl", lines + lines.substr(lines.rfind('\n', lines.size() - 2) + 1));
  EXPECT_NE(difference(scratch.run(), every_step_saved()), "");
}

}  // namespace
}  // namespace caravan::test

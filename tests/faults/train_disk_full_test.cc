// The disk fills, at random bytes and for real: the run ends, pauses or goes on as checkpoint.on_save_failure says, and
// what was saved before stays.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <fstream>
#include <random>

#include "tests/faults/train_run.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

constexpr int kSteps = 20;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

int times(const std::string& text, const std::string& part) {
  int count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

RunSettings run_with_policy(const std::string& policy, bool async = false, int steps = kSteps) {
  return {.steps = steps,
          .interval = 4,
          .async = async,
          .more = {"--checkpoint.on_save_failure", policy, "--checkpoint.pause_seconds", "0.05"}};
}

std::int64_t bytes_below(const fs::path& folder) {
  std::int64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    bytes += entry.is_regular_file() ? static_cast<std::int64_t>(entry.file_size()) : 0;
  }
  return bytes;
}

// What is wrong with a run on a disk with room for that many bytes.
std::string wrong_on_disk(const std::string& policy, bool async, std::int64_t room) {
  const RunScratch scratch;
  const RunSettings settings = run_with_policy(policy, async);
  ChildLimits limits;
  bool paused = false;
  // Nobody makes room here: a run that pauses has to be stopped.
  limits.watch = [&](pid_t child, const std::string& out) {
    if (!paused && contains(out, "training pauses")) {
      paused = true;
      kill(child, SIGTERM);
    }
  };
  const ChildEnd end = train(scratch.run(), settings, {.under = scratch.run(), .disk_bytes = room}, limits);
  const std::string where = policy + " with room for " + std::to_string(room) + " bytes: ";
  const std::string wrong = ended_badly(end);
  if (!wrong.empty()) {
    return where + wrong;
  }
  if (end.status == 0) {
    return where + "it ended well";
  }
  if (!contains(end.err, "No space left") && !contains(end.err, "disk full") && !contains(end.err, "not saved")) {
    return where + "the reason is not told: " + end.err;
  }
  const Newest newest = newest_checkpoint(scratch.run());
  // Its line is written before a step is saved, and only a run that goes on writes lines after a save that failed.
  const std::int64_t saved =
      (last_line(scratch.run()) - 1) / settings.interval * settings.interval - (async ? settings.interval : 0);
  if (!newest.problem.empty() || (policy != "continue" && newest.step < saved && saved > 0)) {
    return where + "step " + std::to_string(saved) + " was saved, the newest is " + std::to_string(newest.step) + " " +
           newest.problem;
  }
  const std::string again = wrong_after_rerun(scratch.run(), settings);
  return again.empty() ? "" : where + again + "\n  (" + end.err + ")";
}

TEST(TrainingOnAFullDisk, AtRandomBytesDoesAsItWasToldAndLosesNothing) {
  const RunScratch scratch;
  ASSERT_EQ(train(scratch.run(), run_with_policy("stop")).status, 0);
  const std::int64_t written = bytes_below(scratch.run());
  undisturbed(run_with_policy("stop"));
  std::mt19937_64 random(5);
  std::vector<std::int64_t> rooms;
  for (int i = 0; i < 27; ++i) {
    rooms.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(written)));
  }
  const auto complaints = for_all(std::ssize(rooms), [&](std::int64_t i) {
    const char* policies[] = {"stop", "continue", "pause"};
    return wrong_on_disk(policies[i % 3], i % 2 == 0, rooms[static_cast<std::size_t>(i)]);
  });
  EXPECT_TRUE(complaints.empty()) << in_lines(complaints);
}

// A file system of four mebibytes, and a file that takes its room.
class SmallDisk : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(disk());
    mounted_ = mount_tmpfs(disk(), 0, "size=4m");
    if (!mounted_) {
      GTEST_SKIP() << "this user may not mount file systems";
    }
  }
  void TearDown() override {
    if (mounted_) {
      umount2(disk().c_str(), MNT_DETACH);
    }
  }

  fs::path disk() const { return scratch_.path() / "disk"; }
  fs::path run() const { return disk() / "run"; }
  fs::path ballast() const { return disk() / "ballast"; }

  // Leaves `room` bytes free.
  void fill(std::int64_t room) const {
    struct statvfs status {};
    statvfs(disk().c_str(), &status);
    const std::int64_t free = static_cast<std::int64_t>(status.f_bavail * status.f_frsize);
    std::ofstream(ballast(), std::ios::binary | std::ios::app)
        << std::string(static_cast<std::size_t>(std::max<std::int64_t>(0, free - room)), 'x');
  }

  RunScratch scratch_;
  bool mounted_ = false;
};

constexpr int kLong = 400;
constexpr std::int64_t kNoCheckpoint = 100'000;  // room for data and metrics of a while

TEST_F(SmallDisk, StopsWithASentenceAndGoesOnWhenThereIsRoom) {
  fill(kNoCheckpoint);
  RunSettings settings = run_with_policy("stop", /*async=*/true, kLong);
  settings.more.insert(settings.more.end(), {"--checkpoint.keep_latest_k", "1"});
  const ChildEnd end = train(run(), settings);
  EXPECT_EQ(end.status, 2);
  EXPECT_EQ(ended_badly(end), "");
  EXPECT_TRUE(contains(end.err, "saving failed")) << end.err;
  EXPECT_TRUE(contains(end.err, "there is no earlier checkpoint")) << end.err;
  fs::remove(ballast());
  EXPECT_EQ(wrong_after_rerun(run(), settings), "");
}

TEST_F(SmallDisk, PausesAndGoesOnWhenThereIsRoom) {
  fill(kNoCheckpoint);
  RunSettings settings = run_with_policy("pause", /*async=*/true, kLong);
  settings.more.insert(settings.more.end(), {"--checkpoint.keep_latest_k", "1"});
  ChildLimits limits;
  std::int64_t line_at_pause = 0;
  limits.watch = [&](pid_t, const std::string& out) {
    const std::size_t first = out.find("saving failed");
    if (line_at_pause == 0 && first != std::string::npos && out.find("saving failed", first + 1) != std::string::npos) {
      line_at_pause = last_line(run());
      fs::remove(ballast());
    }
  };
  const ChildEnd end = train(run(), settings, {}, limits);
  EXPECT_EQ(end.status, 0) << end.err;
  EXPECT_EQ(end.err, "");
  EXPECT_GT(line_at_pause, 0);
  EXPECT_LE(line_at_pause, 8) << "it did not pause";
  EXPECT_TRUE(contains(end.out, "worked; training goes on")) << end.out;
  EXPECT_EQ(difference(run(), settings), "");
  EXPECT_EQ(leftovers(run()), "");
}

TEST_F(SmallDisk, GoesOnWithoutSavingAndWritesTheMetricsWhenThereIsRoom) {
  fill(kNoCheckpoint);
  RunSettings settings = run_with_policy("continue", /*async=*/true, kLong);
  settings.more.insert(settings.more.end(), {"--checkpoint.keep_latest_k", "1"});
  ChildLimits limits;
  bool full = false;
  bool freed = false;
  limits.watch = [&](pid_t, const std::string& out) {
    if (!full && contains(out, "saving failed")) {
      fill(0);
      full = true;
    } else if (full && !freed && times(out, "writing the metrics failed") >= 3) {
      fs::remove(ballast());
      freed = true;
    }
  };
  const ChildEnd end = train(run(), settings, {}, limits);
  EXPECT_EQ(end.status, 0) << end.err;
  EXPECT_EQ(end.err, "");
  EXPECT_TRUE(freed) << end.out;
  EXPECT_EQ(difference(run(), settings), "") << "every step has its line";
  EXPECT_EQ(leftovers(run()), "");
}

}  // namespace
}  // namespace caravan::test

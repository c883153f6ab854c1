// Signals, a blocked writer, folders that cannot be used, and checkpoints that are damaged: what `caravan train` does.
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "caravan/base/json.h"
#include "tests/faults/train_run.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kSteps = 400;  // long enough to be met in the middle

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

RunSettings long_run() {
  return {.steps = kSteps, .interval = 50, .async = true};
}

// Sends the signal once, when the run has printed `after`.
ChildLimits signal_at(const std::string& after, int signal) {
  ChildLimits limits;
  limits.watch = [after, signal, sent = false](pid_t child, const std::string& out) mutable {
    if (!sent && contains(out, after)) {
      kill(child, signal);
      sent = true;
    }
  };
  return limits;
}

class StopSignal : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(TrainingStopped, StopSignal, testing::Values(SIGINT, SIGTERM, SIGHUP));

TEST_P(StopSignal, FinishesTheStepSavesAndTellsTheCommandThatGoesOn) {
  const RunScratch scratch;
  const ChildEnd end = train(scratch.run(), long_run(), {}, signal_at("step: 7 ", GetParam()));
  ASSERT_EQ(end.status, 0) << end.err;
  EXPECT_EQ(end.err, kEndsSoon);
  const std::int64_t stopped = last_line(scratch.run());
  ASSERT_LT(stopped, kSteps);
  EXPECT_EQ(newest_checkpoint(scratch.run()).step, stopped);
  const std::string before = "stopped at step " + std::to_string(stopped) + " of 400; to go on: ";
  ASSERT_TRUE(contains(end.out, before)) << end.out;
  std::string command = end.out.substr(end.out.find(before) + before.size());
  command.pop_back();
  const ChildEnd on = run_with_faults({"/bin/sh", "-c", command}, {});
  EXPECT_EQ(on.status, 0) << on.err;
  EXPECT_TRUE(contains(on.out, "step-" + std::to_string(stopped) + ": step " + std::to_string(stopped))) << on.out;
  EXPECT_EQ(difference(scratch.run(), long_run()), "");
}

TEST_P(StopSignal, BeforeTheFirstStepIsDoneLeavesAtOnceWithAWord) {
  const RunScratch scratch;
  const FaultPlan blocked{.call = "fsync", .fail_at = 1, .delay_ms = 20'000, .under = scratch.run()};
  ChildLimits limits;
  const Clock::time_point begin = Clock::now();
  Clock::time_point sent{};
  limits.watch = [&](pid_t child, const std::string&) {
    if (sent == Clock::time_point{} && Clock::now() - begin > milliseconds(500)) {
      kill(child, GetParam());
      sent = Clock::now();
    }
  };
  const ChildEnd end = train(scratch.run(), long_run(), blocked, limits);
  ASSERT_NE(sent, Clock::time_point{}) << "nothing was blocked";
  EXPECT_LT(Clock::now() - sent, milliseconds(500));
  EXPECT_EQ(end.status, 128 + GetParam());
  EXPECT_EQ(ended_badly(end), "");
  EXPECT_TRUE(contains(end.err, "stopped before a step was done")) << end.err;
}

TEST(TrainingInterrupted, NohupKeepsItsWord) {
  const RunScratch scratch;
  const RunSettings settings = long_run();
  std::vector<std::string> command = {"/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "sh"};
  const std::vector<std::string> own = train_command(scratch.run(), settings);
  command.insert(command.end(), own.begin(), own.end());
  const ChildEnd end = run_with_faults(command, {}, signal_at("step: 7 ", SIGHUP));
  EXPECT_EQ(end.status, 0) << end.err;
  EXPECT_EQ(end.err, "");
  EXPECT_EQ(difference(scratch.run(), settings), "");
}

TEST(TrainingInterrupted, AReaderThatGoesAwayLosesNoStep) {
  const RunScratch scratch;
  const RunSettings settings = long_run();
  std::vector<std::string> command = {
      "/bin/sh", "-c", "\"$@\" | while read -r line; do case $line in 'step: 7 '*) exit;; esac; done", "sh"};
  const std::vector<std::string> own = train_command(scratch.run(), settings);
  command.insert(command.end(), own.begin(), own.end());
  const ChildEnd end = run_with_faults(command, {});
  EXPECT_TRUE(contains(end.err, "nobody reads the output any more")) << end.err;
  const std::int64_t stopped = last_line(scratch.run());
  ASSERT_LT(stopped, kSteps);
  EXPECT_EQ(newest_checkpoint(scratch.run()).step, stopped);
  EXPECT_EQ(wrong_after_rerun(scratch.run(), settings), "");
}

// The N-th fsync below the checkpoints is the first one of the save of `step`.
std::int64_t first_fsync_of(const RunSettings& settings, int step) {
  const RunScratch scratch;
  const ChildEnd end =
      train(scratch.run(), settings, {.under = scratch.checkpoints(), .trace = scratch.path() / "trace"});
  EXPECT_EQ(end.status, 0) << end.err;
  std::istringstream lines(read_file(scratch.path() / "trace"));
  std::int64_t fsyncs = 0;
  const std::string wanted = "/.saving-step-" + std::to_string(step);
  for (std::string line; std::getline(lines, line);) {
    fsyncs += line.starts_with("fsync ") ? 1 : 0;
    if (line.starts_with("fsync ") && contains(line, wanted)) {
      return fsyncs;
    }
  }
  return -1;
}

TEST(TrainingInterrupted, ASecondSignalLeavesAtOnceThoughASaveIsBlockedAndHarmsNothing) {
  for (const bool async : {false, true}) {
    SCOPED_TRACE(async ? "async" : "disabled");
    const RunScratch scratch;
    RunSettings settings = long_run();
    settings.async = async;
    const FaultPlan blocked{
        .call = "fsync", .fail_at = first_fsync_of(settings, 100), .delay_ms = 20'000, .under = scratch.checkpoints()};
    ASSERT_GT(blocked.fail_at, 0);
    ChildLimits limits;
    Clock::time_point first{};
    Clock::time_point second{};
    limits.watch = [&](pid_t child, const std::string& out) {
      const Clock::time_point now = Clock::now();
      if (first == Clock::time_point{} && contains(out, "step: 100 ")) {
        kill(child, SIGINT);
        first = now;
      } else if (first != Clock::time_point{} && second == Clock::time_point{} && now - first > milliseconds(300)) {
        kill(child, SIGINT);
        second = now;
      }
    };
    const ChildEnd end = train(scratch.run(), settings, blocked, limits);
    ASSERT_NE(second, Clock::time_point{}) << "the first signal ended it, though a save was blocked";
    EXPECT_LT(Clock::now() - second, milliseconds(500));
    EXPECT_EQ(end.status, 128 + SIGINT);
    EXPECT_EQ(newest_checkpoint(scratch.run()).step, 50);
    EXPECT_EQ(newest_checkpoint(scratch.run()).problem, "");
    EXPECT_EQ(wrong_after_rerun(scratch.run(), settings), "");
  }
}

TEST(TrainingBesideASave, FiveMoreStepsTakeNoLongerWhileTheWriterIsBlocked) {
  constexpr milliseconds kBlocked{2000};
  const RunScratch scratch;
  const RunSettings settings{.steps = 120, .interval = 60, .async = true};
  const FaultPlan plan{.call = "fsync",
                       .fail_at = first_fsync_of(settings, 60),
                       .delay_ms = kBlocked.count(),
                       .under = scratch.checkpoints()};
  ASSERT_GT(plan.fail_at, 0);
  ChildLimits limits;
  Clock::time_point save_begins{};
  Clock::time_point five_later{};
  limits.watch = [&](pid_t, const std::string& out) {
    if (save_begins == Clock::time_point{} && contains(out, "step: 60 ")) {
      save_begins = Clock::now();
    }
    if (five_later == Clock::time_point{} && contains(out, "step: 66 ")) {
      five_later = Clock::now();
    }
  };
  const auto begin = Clock::now();
  const ChildEnd end = train(scratch.run(), settings, plan, limits);
  ASSERT_EQ(end.status, 0) << end.err;
  EXPECT_GE(Clock::now() - begin, kBlocked) << "the writer was not blocked";
  EXPECT_LT(five_later - save_begins, kBlocked / 4);
  std::istringstream lines(read_file(scratch.run() / "metrics.jsonl"));
  std::vector<double> before;
  std::vector<double> meanwhile;
  for (std::string line; std::getline(lines, line);) {
    const Json json = parse_json(line, "metrics.jsonl");
    const std::int64_t step = json.at("step");
    if (step > 5 && step <= 60) {
      before.push_back(json.at("seconds"));
    } else if (step > 60 && step <= 65) {
      meanwhile.push_back(json.at("seconds"));
    }
  }
  const auto median = [](std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  ASSERT_EQ(meanwhile.size(), 5U);
  EXPECT_LT(median(meanwhile), 3 * median(before)) << "a busy machine slows both";
  EXPECT_EQ(difference(scratch.run(), settings), "");
}

void expect_refused_at_once(const fs::path& folder) {
  const ChildEnd end = train(folder, {});
  EXPECT_EQ(end.status, 2) << folder;
  EXPECT_EQ(ended_badly(end), "");
  EXPECT_TRUE(contains(end.err, folder.string())) << end.err;
  EXPECT_FALSE(contains(end.out, "step: 1")) << end.out;
}

TEST(TrainingFolder, ThatCannotBeMadeIsToldBeforeTheFirstStep) {
  const RunScratch scratch;
  write_file(scratch.path() / "file", "");
  expect_refused_at_once(scratch.path() / "file" / "run");
  expect_refused_at_once("/proc/caravan_run");
}

TEST(TrainingFolder, OnAReadOnlyDiskIsToldBeforeTheFirstStep) {
  const RunScratch scratch;
  const fs::path disk = scratch.path() / "disk";
  fs::create_directory(disk);
  if (!mount_tmpfs(disk, MS_RDONLY, "size=64k")) {
    GTEST_SKIP() << "this user may not mount file systems";
  }
  expect_refused_at_once(disk / "run");
  umount(disk.c_str());
}

TEST(TrainingFolder, OfAnotherRunIsRefusedAndThatRunGoesOn) {
  const RunScratch scratch;
  ChildLimits limits;
  ChildEnd second;
  limits.watch = [&](pid_t, const std::string& out) {
    if (second.status == -1 && contains(out, "step: 2 ")) {
      RunSettings other = long_run();
      other.more = {"--debug.seed", "43"};
      second = train(scratch.run(), other);
    }
  };
  const ChildEnd first = train(scratch.run(), long_run(), {}, limits);
  EXPECT_EQ(second.status, 2);
  EXPECT_EQ(ended_badly(second), "");
  EXPECT_TRUE(contains(second.err, "another run saves its checkpoints here")) << second.err;
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_EQ(difference(scratch.run(), long_run()), "");
  EXPECT_FALSE(contains(read_file(scratch.run() / "config.toml"), "43")) << "the refused run wrote its configuration";
}

struct Damage {
  const char* name;
  void (*make)(const fs::path& checkpoint);
};

void flip_a_bit(const fs::path& path) {
  std::string bytes = read_file(path);
  bytes[bytes.size() * 2 / 3] = static_cast<char>(bytes[bytes.size() * 2 / 3] ^ 1);
  write_file(path, bytes);
}

class DamagedCheckpoint : public testing::TestWithParam<Damage> {};
INSTANTIATE_TEST_SUITE_P(
    Training, DamagedCheckpoint,
    testing::Values(Damage{"ABitOfTheTensors", [](const fs::path& p) { flip_a_bit(p / "rank-0.safetensors"); }},
                    Damage{"ABitOfTheManifest", [](const fs::path& p) { flip_a_bit(p / "manifest.json"); }},
                    Damage{"ABitOfTheMarker", [](const fs::path& p) { flip_a_bit(p / "COMPLETE"); }},
                    Damage{"TensorsCutOff", [](const fs::path& p) { fs::resize_file(p / "rank-0.safetensors", 5000); }},
                    Damage{"NoTensors", [](const fs::path& p) { fs::remove(p / "rank-0.safetensors"); }},
                    Damage{"NoManifest", [](const fs::path& p) { fs::remove(p / "manifest.json"); }}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(DamagedCheckpoint, IsPassedOverWithAWordAndTheOneBeforeServes) {
  const RunScratch scratch;
  const RunSettings settings{.steps = 6, .interval = 2};
  ASSERT_EQ(train(scratch.run(), settings).status, 0);
  GetParam().make(scratch.checkpoints() / "step-6");
  const ChildEnd end = train(scratch.run(), settings);
  EXPECT_EQ(end.status, 0) << end.err;
  EXPECT_TRUE(contains(end.out, "warning: the checkpoint of step 6 is passed over: ")) << end.out;
  EXPECT_TRUE(contains(end.out, "step-4: step 4")) << end.out;
  EXPECT_EQ(difference(scratch.run(), settings), "");
}

}  // namespace
}  // namespace caravan::test

// The faults themselves: that they strike where they are told to, and nowhere else.
#include "tests/faults/faults.h"

#include <gtest/gtest.h>

namespace caravan::test {
namespace {

ChildEnd shell(const std::string& script, const FaultPlan& plan, const ChildLimits& limits = {}) {
  return run_with_faults({"/bin/sh", "-c", script}, plan, limits);
}

ChildEnd save(const std::filesystem::path& folder, const FaultPlan& plan) {
  return run_with_faults({SAVE_PROGRAM, folder.string(), "1"}, plan);
}

TEST(Faults, CountWhatAProgramDoesBelowAPath) {
  const ScratchDirectory scratch;
  save(scratch.path() / "a", {});
  const ChildEnd end = save(scratch.path() / "a", {.under = scratch.path() / "a"});
  EXPECT_EQ(end.status, 0);
  EXPECT_EQ(end.out, "saved 1\nsaved 2\nsaved 3\nsaved 4\n");
  EXPECT_EQ(end.counts.size(), 11U);
  for (const auto& [kind, count] : end.counts) {
    EXPECT_GT(count, 0) << kind;
  }
  ChildEnd elsewhere = save(scratch.path() / "b", {.under = scratch.path() / "a"});
  EXPECT_EQ(elsewhere.counts["write"], 0);
  EXPECT_EQ(elsewhere.counts["rename"], 0);
}

TEST(Faults, FailOneCallWithTheErrnoThatWasAskedFor) {
  const ScratchDirectory scratch;
  const ChildEnd end = save(scratch.path() / "a", {.call = "fsync", .fail_at = 5, .error = "EDQUOT"});
  EXPECT_EQ(end.status, 1);
  EXPECT_NE(end.err.find("Disk quota exceeded"), std::string::npos) << end.err;
  EXPECT_EQ(std::count(end.err.begin(), end.err.end(), '\n'), 1) << "once only";
}

TEST(Faults, TraceTheCallsUpToTheKill) {
  const ScratchDirectory scratch;
  const std::filesystem::path trace = scratch.path() / "trace";
  const ChildEnd end =
      save(scratch.path() / "a", {.call = "rename", .kill_at = 3, .under = scratch.path() / "a", .trace = trace});
  EXPECT_EQ(end.signal, SIGKILL);
  EXPECT_EQ(end.status, -1);
  const std::string text = read_file(trace);
  EXPECT_TRUE(text.starts_with("mkdir " + (scratch.path() / "a").string() + "\n")) << text.substr(0, 200);
  const std::string last = text.substr(text.rfind('\n', text.size() - 2) + 1);
  EXPECT_TRUE(last.starts_with("rename " + (scratch.path() / "a").string())) << last;
}

TEST(Faults, FillTheDiskInTheMiddleOfAWrite) {
  const ScratchDirectory scratch;
  const std::filesystem::path file = scratch.path() / "file";
  const ChildEnd end = shell("printf 0123456789 > " + file.string(), {.under = file, .disk_bytes = 4});
  EXPECT_NE(end.status, 0);
  EXPECT_EQ(read_file(file), "0123");
}

TEST(Faults, TheHelperEndsAndSignalsPrograms) {
  ChildLimits limits;
  limits.time = std::chrono::milliseconds(200);
  const ChildEnd late = shell("sleep 60", {}, limits);
  EXPECT_TRUE(late.timed_out);
  EXPECT_EQ(late.signal, SIGKILL);
  limits.time = std::chrono::seconds(30);
  limits.signal = SIGTERM;
  limits.signal_after = std::chrono::milliseconds(50);
  const ChildEnd told = shell("trap 'echo told >&2; exit 7' TERM; while :; do :; done", {}, limits);
  EXPECT_EQ(told.status, 7);
  EXPECT_EQ(told.err, "told\n");
  EXPECT_FALSE(told.timed_out);
}

}  // namespace
}  // namespace caravan::test

// Every call of a saving program fails once, the program is killed at every call, and its disk fills: what is left must
// be whole and no older than what the program said was saved.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "caravan/base/json.h"
#include "caravan/tensor/copy.h"
#include "tests/faults/faults.h"
#include "tests/faults/save_program.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointReader;

// In memory where the system has such a place: fsync costs nothing there, and thousands run here.
class FastScratch {
 public:
  FastScratch() {
    std::string name =
        (access("/dev/shm", W_OK) == 0 ? "/dev/shm" : fs::temp_directory_path().string()) + "/caravan_faults_XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~FastScratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  FastScratch(const FastScratch&) = delete;
  FastScratch& operator=(const FastScratch&) = delete;

  fs::path folder() const { return path_ / "checkpoints"; }

 private:
  fs::path path_;
};

enum class Before { kNothing, kEarlierRun };

ChildEnd save(const fs::path& folder, int generation, const FaultPlan& plan = {}) {
  FaultPlan below = plan;
  below.under = folder;
  return run_with_faults({SAVE_PROGRAM, folder.string(), std::to_string(generation)}, below);
}

// A folder as it is before the run with the fault.
void make_before(const fs::path& folder, Before before) {
  fs::remove_all(folder);
  if (before == Before::kEarlierRun) {
    ASSERT_EQ(save(folder, 1).status, 0);
  }
}

std::int64_t last_saved(const std::string& out) {
  std::istringstream lines(out);
  std::int64_t last = -1;
  std::string word;
  for (std::int64_t step = 0; lines >> word >> step;) {
    last = step;
  }
  return last;
}

// Everything that calls itself complete is whole and holds what belongs to its step; what the run of generation 2
// said it saved last is among it and is that run's.  Only a kill leaves a save cut off; others clean up after themselves.
void expect_whole(const fs::path& folder, Before before, const std::string& out, std::size_t most_cut_off = 0) {
  const std::vector<std::int64_t> steps = checkpoint::complete_steps(folder);
  for (const std::int64_t step : steps) {
    const CheckpointReader reader = CheckpointReader::open(checkpoint::step_directory(folder, step));
    reader.verify();
    ASSERT_EQ(reader.state()["step"], step);
    const std::int64_t generation = reader.state()["generation"];
    for (const checkpoint::NamedTensor& one : tensors_of(step, generation)) {
      const Tensor target =
          tensor_of(std::vector<float>(static_cast<std::size_t>(one.tensor.elements())), one.tensor.shape());
      reader.read(one.name, target);
      ASSERT_EQ(to_floats(target), to_floats(one.tensor)) << one.name;
    }
  }
  const std::int64_t last = last_saved(out);
  if (last >= 0) {
    // The next save may have been durable, and what is too old removed, before the program could say so.
    EXPECT_TRUE(std::ranges::any_of(
        steps,
        [&](std::int64_t step) {
          return step >= last &&
                 CheckpointReader::open(checkpoint::step_directory(folder, step)).state()["generation"] == 2;
        }))
        << "step " << last << " was saved and is gone";
  }
  std::vector<std::string> warnings;
  const auto newest = checkpoint::open_newest(folder, warnings);
  const std::size_t cut_off = std::erase_if(warnings, tells_of_a_save_cut_off);
  EXPECT_TRUE(warnings.empty()) << warnings.front();
  EXPECT_LE(cut_off, most_cut_off);
  EXPECT_EQ(newest.has_value(), !steps.empty());
  // An earlier run had saved the last step: the old one or the new one is there.
  const std::int64_t least = before == Before::kEarlierRun ? kLastStep : last;
  if (least >= 0) {
    ASSERT_TRUE(newest);
    EXPECT_GE(newest->state()["step"], least);
  }
}

void expect_clean_rerun(const fs::path& folder) {
  const ChildEnd end = save(folder, 3);
  ASSERT_EQ(end.status, 0) << end.err;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"step-3", "step-4"})) << "all saved, the old ones and all traces removed";
}

bool is_one_sentence_a_line(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("save_program: ") || line.size() < 20) {
      return false;
    }
  }
  return true;
}

constexpr const char* kKinds[] = {"open", "write", "fsync", "rename", "mkdir", "unlink", "truncate", "close", "mmap"};

void fail_every_call(Before before, const std::string& kind, const std::string& error) {
  const FastScratch scratch;
  make_before(scratch.folder(), before);
  const std::int64_t calls = save(scratch.folder(), 2).counts[kind];
  const bool nothing_to_open = before == Before::kNothing && kind == "mmap";
  ASSERT_GT(calls, nothing_to_open ? -1 : 0) << kind;
  for (std::int64_t at = 1; at <= calls; ++at) {
    SCOPED_TRACE(kind + " " + std::to_string(at) + " of " + std::to_string(calls) + " fails with " + error);
    make_before(scratch.folder(), before);
    const ChildEnd end = save(scratch.folder(), 2, {.call = kind, .fail_at = at, .error = error});
    ASSERT_EQ(end.signal, 0) << end.err;
    EXPECT_FALSE(end.timed_out);
    EXPECT_EQ(end.status == 0, end.err.empty()) << end.err;
    EXPECT_TRUE(is_one_sentence_a_line(end.err)) << end.err;
    expect_whole(scratch.folder(), before, end.out);
    expect_clean_rerun(scratch.folder());
    if (::testing::Test::HasFatalFailure()) {
      return;
    }
  }
}

TEST(SavingWithFaults, EveryCallMayFailOnceInAFreshFolder) {
  for (const char* kind : kKinds) {
    fail_every_call(Before::kNothing, kind, "EIO");
  }
}

TEST(SavingWithFaults, EveryCallMayFailOnceOverAnEarlierRun) {
  for (const char* kind : kKinds) {
    fail_every_call(Before::kEarlierRun, kind, "EIO");
  }
}

// EINVAL is what a file system answers that knows no exchange of two names.
TEST(SavingWithFaults, AFileSystemMayKnowNoExchange) {
  fail_every_call(Before::kEarlierRun, "rename", "EINVAL");
}

void kill_at_every_call(Before before) {
  const FastScratch scratch;
  make_before(scratch.folder(), before);
  std::int64_t calls = 0;
  for (const auto& [kind, count] : save(scratch.folder(), 2).counts) {
    const bool changes_disk = kind != "read" && kind != "mmap" && kind != "close" && kind != "new";
    calls += changes_disk ? count : 0;
  }
  ASSERT_GT(calls, 50);
  for (std::int64_t at = 1; at <= calls; ++at) {
    SCOPED_TRACE("killed at call " + std::to_string(at) + " of " + std::to_string(calls));
    make_before(scratch.folder(), before);
    const ChildEnd end = save(scratch.folder(), 2, {.call = "any", .kill_at = at});
    ASSERT_EQ(end.signal, SIGKILL) << end.err;
    // The save under way can be cut off; one that replaces a step never leaves it without its COMPLETE.
    expect_whole(scratch.folder(), before, end.out, before == Before::kNothing ? 1 : 0);
    expect_clean_rerun(scratch.folder());
    if (::testing::Test::HasFatalFailure()) {
      return;
    }
  }
}

TEST(SavingWithFaults, AKillAtAnyCallLeavesWholeCheckpoints) {
  kill_at_every_call(Before::kNothing);
}

TEST(SavingWithFaults, AKillAtAnyCallOverAnEarlierRunLeavesWholeCheckpoints) {
  kill_at_every_call(Before::kEarlierRun);
}

TEST(SavingWithFaults, AFullDiskAtAnyByteLeavesTheCheckpointsBefore) {
  const FastScratch scratch;
  for (const Before before : {Before::kNothing, Before::kEarlierRun}) {
    int positions = 0;
    for (std::int64_t room = 0;; room += 541) {
      SCOPED_TRACE("a disk with room for " + std::to_string(room) + " bytes");
      make_before(scratch.folder(), before);
      const ChildEnd end = save(scratch.folder(), 2, {.disk_bytes = room});
      if (end.status == 0) {
        break;
      }
      ++positions;
      ASSERT_EQ(end.status, 1) << end.err;
      EXPECT_NE(end.err.find("No space left on device"), std::string::npos) << end.err;
      EXPECT_TRUE(is_one_sentence_a_line(end.err)) << end.err;
      expect_whole(scratch.folder(), before, end.out);
      for (const auto& entry : fs::directory_iterator(scratch.folder())) {
        EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path() << " holds space";
      }
      expect_clean_rerun(scratch.folder());
      ASSERT_FALSE(::testing::Test::HasFatalFailure());
    }
    EXPECT_GE(positions, 40);
  }
}

// A power cut keeps only what was made durable, in any order: no test can cut the power, but the order of calls shows.
TEST(SavingWithFaults, NothingIsRenamedOrCalledCompleteBeforeItIsDurable) {
  const FastScratch scratch;
  const fs::path folder = scratch.folder();
  const fs::path trace = folder.parent_path() / "trace";
  for (const Before before : {Before::kNothing, Before::kEarlierRun}) {
    make_before(folder, before);
    fs::remove(trace);
    ASSERT_EQ(save(folder, 2, {.trace = trace}).status, 0);
    std::istringstream lines(read_file(trace));
    std::set<std::string> unsynced;  // files and directories with changes that are not durable
    int directories = 0;
    int completes = 0;
    std::string kind;
    for (std::string path; lines >> kind >> path;) {
      const std::string parent = fs::path(path).parent_path().string();
      const std::string name = fs::path(path).filename().string();
      if (kind == "write") {
        unsynced.insert(path);
      } else if (kind == "fsync") {
        unsynced.erase(path);
      } else if (kind == "rename" && name.starts_with("step-")) {
        ++directories;
        EXPECT_TRUE(unsynced.empty()) << path << " takes its place while " << *unsynced.begin() << " is not durable";
        unsynced.insert(parent);
      } else if (kind == "rename" && name == "COMPLETE") {
        ++completes;
        EXPECT_TRUE(unsynced.empty()) << path << " appears while " << *unsynced.begin() << " is not durable";
        unsynced.insert(parent);
      } else if (kind == "rename") {
        EXPECT_FALSE(std::ranges::any_of(unsynced, [&](const std::string& one) {
          return fs::path(one).filename().string().starts_with("." + name + ".");
        })) << path;
        unsynced.insert(parent);
      }
    }
    EXPECT_TRUE(unsynced.empty());
    EXPECT_EQ(directories, kLastStep);
    EXPECT_EQ(completes, kLastStep);
  }
}

TEST(SavingWithFaults, EveryAllocationMayFailOnce) {
  const FastScratch scratch;
  make_before(scratch.folder(), Before::kEarlierRun);
  const std::int64_t calls = save(scratch.folder(), 2).counts["new"];
  ASSERT_GT(calls, 200);
  const std::int64_t stride = std::max<std::int64_t>(1, calls / 200);
  int runs = 0;
  int aborted = 0;
  for (std::int64_t at = 1; at <= calls; at += stride) {
    SCOPED_TRACE("allocation " + std::to_string(at) + " of " + std::to_string(calls));
    make_before(scratch.folder(), Before::kEarlierRun);
    const ChildEnd end = save(scratch.folder(), 2, {.call = "new", .fail_at = at});
    ++runs;
    if (end.signal == SIGABRT) {
      ++aborted;
    } else {
      ASSERT_EQ(end.signal, 0) << end.err;
      EXPECT_EQ(end.status == 0, end.err.empty()) << end.err;
    }
    expect_whole(scratch.folder(), Before::kEarlierRun, end.out);
    expect_clean_rerun(scratch.folder());
    ASSERT_FALSE(::testing::Test::HasFatalFailure());
  }
  // nlohmann's destructors (3.11) allocate, and the process ends when they cannot: about one allocation in eighty here.
  EXPECT_LE(aborted * 20, runs);
}

}  // namespace
}  // namespace caravan::test

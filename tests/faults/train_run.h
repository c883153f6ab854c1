// Short runs of `caravan train` in a folder in memory, and whether what they leave is that of an undisturbed run.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/faults/faults.h"

namespace caravan::test {

// What a run is told beyond the tiny model; the flags of `caravan train`.
struct RunSettings {
  int steps = 3;
  int interval = 2;
  bool async = false;
  // Otherwise the reference computes: nothing here depends on the numbers, and it starts without measuring the machine.
  bool cpu = false;
  std::vector<std::string> more = {};  // "--debug.seed", "43"
};

// A directory in memory where the system has such a place (fsync costs nothing there, and thousands run here), with a
// data set.
class RunScratch {
 public:
  RunScratch();
  ~RunScratch();
  RunScratch(const RunScratch&) = delete;
  RunScratch& operator=(const RunScratch&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path run() const { return path_ / "run"; }
  std::filesystem::path checkpoints() const { return path_ / "run" / "checkpoint"; }

 private:
  std::filesystem::path path_;
};

// One data set for all runs: its path and times are part of what is cached.
const std::filesystem::path& data_file();

// `caravan train` into that folder.
std::vector<std::string> train_command(const std::filesystem::path& folder, const RunSettings& settings);
ChildEnd train(const std::filesystem::path& folder, const RunSettings& settings, const FaultPlan& plan = {},
               const ChildLimits& limits = {});

// The folder of an undisturbed run of that length and backend; made once, kept as long as the program runs.
const std::filesystem::path& undisturbed(const RunSettings& settings);

// What tells a finished run from the undisturbed one: exported weights, the last checkpoint's hashes (moments
// included), the lines of metrics.jsonl.  "" when nothing does.
std::string difference(const std::filesystem::path& folder, const RunSettings& settings);

// The checkpoint that the next run would take, or what is wrong with any that calls itself complete.  `step` is -1 when
// there is none.
struct Newest {
  std::int64_t step = -1;
  std::string problem;
};
Newest newest_checkpoint(const std::filesystem::path& folder);

// The last step that metrics.jsonl knows, or 0.
std::int64_t last_line(const std::filesystem::path& folder);

// Hidden names below the folder that no finished run leaves, in one line; "" when there are none.
std::string leftovers(const std::filesystem::path& folder);

// Whether the program was inside a save when its trace (of the calls below its checkpoints, or of more) ended: after
// the directory for it was made, before the rename of its COMPLETE.
bool inside_a_save(const std::filesystem::path& trace);

// What the program says at once when a signal stops it between its first step and its last.
inline constexpr std::string_view kEndsSoon =
    "caravan: the run ends when its step is done and saved; once more leaves at once\n";

// "" when the program ended by itself with one sentence and a status that is not 0, or well and without one; kEndsSoon
// may come before.
std::string ended_badly(const ChildEnd& end);

// Runs the same command again without faults: what is wrong with its end, its results or its folder.
std::string wrong_after_rerun(const std::filesystem::path& folder, const RunSettings& settings);

// Mounts a tmpfs on that directory, with these flags of mount(2) and options, in a mount namespace of this process: it
// goes when the process does.  False when this user may not.
bool mount_tmpfs(const std::filesystem::path& directory, unsigned long flags, const char* options);

// Calls `one(0)` to `one(count - 1)` on all cores and returns what they complain of, without empty answers.
std::vector<std::string> for_all(std::int64_t count, const std::function<std::string(std::int64_t)>& one);

// Complaints as one text, the first ten of them.
std::string in_lines(const std::vector<std::string>& complaints);

}  // namespace caravan::test

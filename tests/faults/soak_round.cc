// One round of scripts/soak: short runs of `caravan train`, each disturbed a few times at random and then run again
// until it finishes; its results must be those of a run that nobody disturbed.
//
//   soak_round SEED SECONDS KEEP     prints one line "kills 12 inside 5 faults 9 ..."; what went wrong goes to stderr, the
//                                    folder of the run to KEEP/SEED-N, and the status is 1
#include <chrono>
#include <cstdio>
#include <random>

#include "tests/faults/train_run.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr int kSteps[] = {3, 8, 20, 60};
constexpr const char* kKinds[] = {"open", "write", "fsync", "rename", "mkdir", "unlink", "truncate", "close", "mmap"};
constexpr const char* kErrors[] = {"EIO", "ENOSPC", "EACCES", "EMFILE", "EDQUOT", "EROFS"};

class Round {
 public:
  explicit Round(std::uint64_t seed) : random_(seed) {}

  // One folder from its first run to its last; "" when all went well.
  std::string one_folder(const fs::path& folder) {
    settings_ = {.steps = kSteps[below(std::size(kSteps))],
                 .interval = 1 + below(4),
                 .async = below(2) == 0,
                 .cpu = below(2) == 0,
                 .more = {"--checkpoint.on_save_failure", below(2) == 0 ? "stop" : "continue"}};
    for (int disturbances = 1 + below(4); disturbances > 0; --disturbances) {
      std::string wrong = disturb(folder);
      const Newest newest = newest_checkpoint(folder);
      if (wrong.empty()) {
        wrong = newest.problem;
      }
      if (wrong.empty() && newest.step < newest_) {
        wrong = "step " + std::to_string(newest_) + " was saved, and the newest is " + std::to_string(newest.step);
      }
      if (!wrong.empty()) {
        return what_ + ": " + wrong;
      }
      newest_ = newest.step;
      ++counts_["runs"];
    }
    const std::string wrong = wrong_after_rerun(folder, settings_);
    ++counts_["runs"];
    return wrong.empty() ? "" : what_ + ": " + wrong;
  }

  void next_folder() {
    newest_ = -1;
    what_.clear();
    ++counts_["folders"];
  }

  std::string line() const {
    std::string text;
    for (const char* name : {"folders", "runs", "kills", "inside", "faults", "allocations", "disks", "signals"}) {
      const auto found = counts_.find(name);
      text += std::string(text.empty() ? "" : " ") + name + " " +
              std::to_string(found == counts_.end() ? 0 : found->second);
    }
    return text;
  }

 private:
  int below(std::size_t limit) { return static_cast<int>(random_() % limit); }

  std::string disturb(const fs::path& folder) {
    const fs::path trace = folder.parent_path() / "trace";
    fs::remove(trace);
    FaultPlan plan;
    ChildLimits limits;
    std::string counted;
    switch (below(6)) {
      case 0:  // without the library
        limits.signal = SIGKILL;
        limits.signal_after = moment();
        what_ += " clock-kill";
        return killed(run_plain(folder, limits), "");
      case 1:
        plan = {.call = "any",
                .kill_at = 1 + below(80 + 30 * static_cast<std::size_t>(settings_.steps)),
                .under = folder,
                .trace = trace};
        what_ += " kill at call " + std::to_string(plan.kill_at);
        return killed(train(folder, settings_, plan), trace);
      case 2:
        plan = {.call = kKinds[below(std::size(kKinds))],
                .fail_at = 1 + below(200),
                .error = kErrors[below(std::size(kErrors))]};
        counted = "faults";
        break;
      case 3:
        plan = {.call = "new", .fail_at = 1 + below(30'000 + 3000 * static_cast<std::size_t>(settings_.steps))};
        counted = "allocations";
        break;
      case 4:
        plan = {.under = folder, .disk_bytes = below(600'000)};
        counted = "disks";
        break;
      default:
        limits.signal = below(2) == 0 ? SIGINT : SIGTERM;
        limits.signal_after = moment();
        counted = "signals";
    }
    what_ += " " + counted + " " + plan.call + " " + std::to_string(plan.fail_at) + " " + plan.error + " " +
             std::to_string(plan.disk_bytes.value_or(0));
    ++counts_[counted];
    const ChildEnd end = train(folder, settings_, plan, limits);
    // Before the program has its handlers a signal ends it, as the system does.
    return counted == "signals" && end.signal == limits.signal ? "" : ended_badly(end);
  }

  // A run of the idle machine takes about so long.
  milliseconds moment() {
    return milliseconds(5 + below((settings_.cpu ? 250 : 40) + 2 * static_cast<std::size_t>(settings_.steps)));
  }

  ChildEnd run_plain(const fs::path& folder, const ChildLimits& limits) const {
    std::vector<std::string> command = {"/usr/bin/env", "-u", "LD_PRELOAD"};
    const std::vector<std::string> rest = train_command(folder, settings_);
    command.insert(command.end(), rest.begin(), rest.end());
    return run_with_faults(command, {}, limits);
  }

  std::string killed(const ChildEnd& end, const fs::path& trace) {
    if (end.signal != SIGKILL) {
      return ended_badly(end);
    }
    ++counts_["kills"];
    counts_["inside"] += !trace.empty() && inside_a_save(trace) ? 1 : 0;
    return "";
  }

  std::mt19937_64 random_;
  RunSettings settings_;
  std::int64_t newest_ = -1;
  std::string what_;  // the disturbances of this folder
  std::map<std::string, std::int64_t> counts_;
};

int run(std::uint64_t seed, int seconds, const fs::path& keep) {
  Round round(seed);
  bool good = true;
  const auto begin = std::chrono::steady_clock::now();
  for (int n = 0; std::chrono::steady_clock::now() - begin < std::chrono::seconds(seconds); ++n) {
    const RunScratch scratch;
    round.next_folder();
    std::string wrong;
    try {
      wrong = round.one_folder(scratch.run());
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    if (!wrong.empty()) {
      good = false;
      const fs::path kept = keep / (std::to_string(seed) + "-" + std::to_string(n));
      std::error_code ignored;
      fs::copy(scratch.path(), kept, fs::copy_options::recursive, ignored);
      std::fprintf(stderr, "seed %llu, folder %d (%s):%s\n", static_cast<unsigned long long>(seed), n, kept.c_str(),
                   wrong.c_str());
    }
  }
  std::printf("%s\n", round.line().c_str());
  return good ? 0 : 1;
}

}  // namespace
}  // namespace caravan::test

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: soak_round SEED SECONDS KEEP\n");
    return 2;
  }
  return caravan::test::run(std::stoull(argv[1]), std::stoi(argv[2]), argv[3]);
}

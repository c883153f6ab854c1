#include "tests/faults/train_run.h"

#include <sched.h>
#include <sys/mount.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "caravan/base/error.h"
#include "caravan/base/json.h"
#include "caravan/checkpoint/training_checkpoint.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointReader;

void write_data(const fs::path& path) {
  std::string text;
  for (int i = 0; i < 12; ++i) {
    Json ids = Json::array();
    for (int j = 0; j < 9 + (i * 5) % 23; ++j) {
      ids.push_back((3 * (j % 7) + i % 2) % 131);
    }
    text += Json{{"ids", ids}}.dump() + "\n";
  }
  write_file(path, text);
}

// "step loss tokens" of every line that is a step.
std::vector<std::string> step_lines(const fs::path& folder) {
  std::vector<std::string> result;
  std::istringstream lines(read_file(folder / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const Json json = parse_json(line, "metrics.jsonl");
    result.push_back(json.at("step").dump() + " " + json.at("loss").dump() + " " + json.at("n_tokens_seen").dump());
  }
  return result;
}

}  // namespace

RunScratch::RunScratch() {
  std::string name =
      (access("/dev/shm", W_OK) == 0 ? "/dev/shm" : fs::temp_directory_path().string()) + "/caravan_runs_XXXXXX";
  path_ = mkdtemp(name.data());
}

RunScratch::~RunScratch() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

const fs::path& data_file() {
  static const RunScratch scratch;
  static const fs::path path = [] {
    const fs::path file = scratch.path() / "its data.jsonl";  // a space, for the shell
    write_data(file);
    return file;
  }();
  return path;
}

std::vector<std::string> train_command(const fs::path& folder, const RunSettings& settings) {
  std::vector<std::string> command = {CARAVAN_PROGRAM,
                                      "train",
                                      "--job.dump_folder",
                                      folder.string(),
                                      "--model.flavor",
                                      "tiny",
                                      "--model.num_hidden_layers",
                                      "1",
                                      "--training.dataset_path",
                                      data_file().string(),
                                      "--training.seq_len",
                                      "16",
                                      "--training.local_batch_size",
                                      "1",
                                      "--training.threads",
                                      "1",
                                      "--training.mixed_precision_param",
                                      "float32",
                                      "--optimizer.lr",
                                      "1e-2",
                                      "--lr_scheduler.warmup_steps",
                                      "2",
                                      "--training.backend",
                                      settings.cpu ? "cpu" : "ref",
                                      "--metrics.log_freq",
                                      settings.cpu ? "1000" : "1",  // each line measures the machine again
                                      "--metrics.disable_color_printing",
                                      "--training.steps",
                                      std::to_string(settings.steps),
                                      "--checkpoint.interval",
                                      std::to_string(settings.interval),
                                      "--checkpoint.async_mode",
                                      settings.async ? "async" : "disabled"};
  command.insert(command.end(), settings.more.begin(), settings.more.end());
  return command;
}

ChildEnd train(const fs::path& folder, const RunSettings& settings, const FaultPlan& plan, const ChildLimits& limits) {
  return run_with_faults(train_command(folder, settings), plan, limits);
}

const fs::path& undisturbed(const RunSettings& settings) {
  static const RunScratch scratch;
  static std::map<std::string, fs::path> done;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  const std::string name = std::to_string(settings.steps) + (settings.cpu ? "-cpu" : "-ref");
  if (!done.contains(name)) {
    const fs::path folder = scratch.path() / name;
    const ChildEnd end = train(folder, {.steps = settings.steps, .interval = 1000, .cpu = settings.cpu});
    if (end.status != 0 || !end.err.empty()) {
      throw std::runtime_error("the undisturbed run failed: " + end.err);
    }
    done[name] = folder;
  }
  return done[name];
}

std::string difference(const fs::path& folder, const RunSettings& settings) {
  const fs::path& reference = undisturbed(settings);
  try {
    if (step_lines(folder) != step_lines(reference)) {
      return "metrics.jsonl differs:\n" + in_lines(step_lines(folder)) + "instead of\n" +
             in_lines(step_lines(reference));
    }
    const auto weights = [](const fs::path& run) { return read_file(run / "model" / "model.safetensors"); };
    if (weights(folder).empty() || weights(folder) != weights(reference)) {
      return "the exported weights differ";
    }
    const auto last = [&settings](const fs::path& run) {
      return CheckpointReader::open(checkpoint::step_directory(run / "checkpoint", settings.steps));
    };
    const CheckpointReader one = last(folder);
    const CheckpointReader two = last(reference);
    one.verify();
    for (const auto& [name, tensor] : two.manifest().tensors) {
      if (one.manifest().tensors.at(name).pieces.front().hash != tensor.pieces.front().hash) {
        return name + " differs in the last checkpoint";
      }
    }
    return one.manifest().tensors.size() == two.manifest().tensors.size() ? "" : "the last checkpoint has more tensors";
  } catch (const std::exception& error) {
    return error.what();
  }
}

Newest newest_checkpoint(const fs::path& folder) {
  Newest result;
  try {
    for (const std::int64_t step : checkpoint::complete_steps(folder / "checkpoint")) {
      const CheckpointReader reader = CheckpointReader::open(checkpoint::step_directory(folder / "checkpoint", step));
      reader.verify();
      if (reader.state().at("step") != step) {
        return {-1, "the checkpoint of step " + std::to_string(step) + " is of another one"};
      }
      result.step = step;
    }
  } catch (const std::exception& error) {
    result.problem = error.what();
  }
  return result;
}

std::int64_t last_line(const fs::path& folder) {
  std::istringstream lines(read_file(folder / "metrics.jsonl"));
  std::int64_t last = 0;
  for (std::string line; std::getline(lines, line);) {
    try {
      last = parse_json(line, "metrics.jsonl").at("step").get<std::int64_t>();
    } catch (const std::exception&) {  // cut off
    }
  }
  return last;
}

std::string leftovers(const fs::path& folder) {
  std::string names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') && name != ".caravan-cache.json") {
      names += " " + fs::relative(entry.path(), folder).string();
    }
  }
  return names;
}

bool inside_a_save(const fs::path& trace) {
  std::istringstream lines(read_file(trace));
  bool inside = false;
  std::string kind;
  for (std::string path; lines >> kind && std::getline(lines >> std::ws, path);) {
    const std::string name = fs::path(path).filename().string();
    if (kind == "mkdir" && name.starts_with(".saving-step-") && name != ".saving-step-0") {
      inside = true;
    } else if (kind == "rename" && name == "COMPLETE") {
      inside = false;
    }
  }
  return inside;
}

std::string ended_badly(const ChildEnd& end) {
  if (end.timed_out) {
    return "it hung; it had printed: " + end.out + end.err;
  }
  if (end.signal != 0) {
    return "signal " + std::to_string(end.signal) + " ended it: " + end.err;
  }
  const std::string said = end.err.substr(end.err.starts_with(kEndsSoon) ? kEndsSoon.size() : 0);
  if (end.status == 0) {
    return said.empty() ? "" : "it ended well and complained: " + end.err;
  }
  const bool one_line = std::ranges::count(said, '\n') == 1 && said.back() == '\n';
  if (!said.starts_with("caravan: ") || !one_line || said.size() < 30) {
    return "its end is not told in one sentence: " + end.err;
  }
  return "";
}

std::string wrong_after_rerun(const fs::path& folder, const RunSettings& settings) {
  const ChildEnd end = train(folder, settings);
  if (end.status != 0 || !end.err.empty()) {
    return "running it again failed: " + ended_badly(end) + end.err;
  }
  const std::string found = difference(folder, settings);
  if (!found.empty()) {
    return "after running it again: " + found;
  }
  const std::string left = leftovers(folder);
  return left.empty() ? "" : "left over:" + left;
}

bool mount_tmpfs(const fs::path& directory, unsigned long flags, const char* options) {
  static const bool own_mounts =
      unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return own_mounts && mount("none", directory.c_str(), "tmpfs", flags, options) == 0;
}

std::vector<std::string> for_all(std::int64_t count, const std::function<std::string(std::int64_t)>& one) {
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::vector<std::string> complaints;
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i) {
    workers.emplace_back([&] {
      for (std::int64_t k = next++; k < count; k = next++) {
        std::string complaint;
        try {
          complaint = one(k);
        } catch (const std::exception& error) {
          complaint = error.what();
        }
        if (!complaint.empty()) {
          const std::lock_guard lock(mutex);
          complaints.push_back(complaint);
        }
      }
    });
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
  return complaints;
}

std::string in_lines(const std::vector<std::string>& complaints) {
  std::string text = std::to_string(complaints.size()) + " in all\n";
  for (std::size_t i = 0; i < std::min<std::size_t>(10, complaints.size()); ++i) {
    text += complaints[i] + "\n";
  }
  return text;
}

}  // namespace caravan::test

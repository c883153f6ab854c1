// Short runs of the tiny model below a scratch directory, for the tests of run.h.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/train/run.h"
#include "tests/support/device.h"
#include "tests/support/scratch.h"

namespace caravan::train {

namespace fs = std::filesystem;

inline Json read_json(const fs::path& path) {
  return parse_json(read_text_file(path, 1 << 24), path.string());
}

// The lines of metrics.jsonl that are steps.
inline std::vector<Json> step_lines(const fs::path& folder) {
  std::vector<Json> result;
  std::istringstream lines(test::read_file(folder / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    Json json = parse_json(line, "metrics.jsonl");
    if (json.contains("loss")) {
      result.push_back(std::move(json));
    }
  }
  return result;
}

struct Ran {
  RunSummary summary;
  std::string out;
};

inline Ran run(const Config& config, const std::function<bool()>& stop = {}) {
  std::ostringstream out;
  RunEnvironment environment{out};
  environment.stop_requested = stop;
  Ran result;
  result.summary = run_training(config, environment);
  result.out = out.str();
  return result;
}

// Sixty documents of ids over the tiny model's vocabulary.
inline void write_ids(const fs::path& path, std::int32_t vocabulary = 131) {
  std::string text;
  for (int i = 0; i < 60; ++i) {
    Json ids = Json::array();
    for (int j = 0; j < 9 + (i * 5) % 23; ++j) {
      ids.push_back((3 * (j % 7) + i % 2) % vocabulary);
    }
    text += Json{{"ids", ids}}.dump() + "\n";
  }
  test::write_file(path, text);
}

class TrainRun : public testing::Test {
 protected:
  TrainRun() {
    write_ids(scratch_.path() / "data.jsonl");
    config_.job.dump_folder = (scratch_.path() / "run").string();
    config_.model.flavor = "tiny";
    config_.training.dataset_path = {(scratch_.path() / "data.jsonl").string()};
    config_.training.seq_len = 32;
    config_.training.local_batch_size = 2;
    config_.training.steps = 6;
    config_.training.threads = 1;
    config_.training.device = test::on_cuda() ? "cuda" : "cpu";
    config_.training.mixed_precision_param = "float32";
    config_.optimizer.lr = 1e-2;
    config_.lr_scheduler.warmup_steps = 2;
    config_.checkpoint.interval = 2;
  }

  fs::path folder() const { return config_.job.dump_folder; }
  fs::path folder(const char* name) const { return scratch_.path() / name; }

  // Where a run asked to stop after an odd step ends: a GPU is at the next one by then, up to which steps are saved.
  static std::int64_t stop_of(std::int64_t step) { return test::on_cuda() ? step + 1 : step; }

  // Stops after the step was done so many times.
  static std::function<bool()> stop_after(int steps) {
    return [steps, done = 0]() mutable { return ++done >= steps; };
  }

  test::ScratchDirectory scratch_;
  Config config_;
};

}  // namespace caravan::train

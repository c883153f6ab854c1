// A whole training run: from a configuration to a model directory, resumable at any moment.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <string>

#include "caravan/train/config.h"

namespace caravan::train {

// What a run needs of the program around it.
struct RunEnvironment {
  std::ostream& out;
  bool terminal = false;                            // whether `out` is one
  std::function<bool()> stop_requested = {};        // asked after every step: save and end
  std::string resume_command = "the same command";  // shown when the run ends early
  std::filesystem::path trace = {};                 // where a trace (ops/trace.h) goes; empty: nobody wants one
  std::int64_t trace_steps = 3;                     // of it, behind the run's first step
};

struct RunSummary {
  std::int64_t step = 0;  // reached
  std::int64_t total_steps = 0;
  bool stopped = false;              // by request, before the last step
  std::filesystem::path checkpoint;  // the newest one; empty without
  std::filesystem::path model;       // the Hugging Face directory; empty without
};

// The architecture, step count and memory of a run, found without training: what `caravan plan` prints.
std::string describe_plan(const Config& config, bool& fits);

// Trains as the configuration says.  Below job.dump_folder:
//   config.toml     the resolved configuration
//   data/           token shards made from text
//   assets/         tokenizer and generation_config.json, for exports
//   checkpoint/     step-N directories
//   metrics.jsonl, tb/
//   model/          the result, as Hugging Face reads it
// A run whose checkpoint folder holds a checkpoint goes on from it; one that is finished says so and changes nothing.
// Throws before the first step: whatever is wrong with configuration, data, folders, memory.  Throws later: FileError
// when a save fails and checkpoint.on_save_failure says stop, NonFiniteError; both name the newest checkpoint.
RunSummary run_training(const Config& config, const RunEnvironment& environment);

}  // namespace caravan::train

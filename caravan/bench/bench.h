// What `caravan bench` measures: the machine's limits, every op of a training step, and the whole step.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "caravan/base/isa.h"
#include "caravan/bench/cases.h"
#include "caravan/bench/decode.h"
#include "caravan/tensor/allocator.h"
#include "caravan/train/config.h"
#include "caravan/train/plan.h"

namespace caravan::bench {

// How long calls of a case took.  The best is what the machine can do, the median what it did: it may be shared.
struct CaseTime {
  std::string name;
  std::int64_t calls = 0;    // in one step
  std::int64_t repeats = 0;  // that were timed
  double flops = 0.0;        // of one call
  double bytes = 0.0;
  double best = 0.0;  // seconds
  double median = 0.0;
};

// Makes the case and times it: one call that makes plans and packs weights, then at least three and about `seconds` of
// them.
CaseTime time_case(ops::Context& ctx, const Case& one, double seconds);

// What this machine can do in the type that the model computes in.
struct MachineSpeed {
  std::string processor;
  std::string backend;  // "cpu", "ref", "cuda"
  std::string device;   // "cpu", "cuda:0"
  std::string isa;
  int threads = 0;
  bool pinned = false;  // training.pin_threads asked for it, and the system did it
  DType dtype = DType::kF32;
  std::vector<CaseTime> products;  // of product_cases()
  double product_peak = 0.0;       // floating-point operations per second: all products' over all their best times
  double square_peak = 0.0;        // of one product of 1024 (on a GPU 8192) cubed, the yardstick of training's mfu
  double read_bandwidth = 0.0;     // bytes per second
  std::int64_t read_bytes = 0;     // of the buffer that was read
};

// An op's part of a step, averaged over the measured ones.
struct OpTime {
  std::string op;
  std::int64_t calls = 0;
  double prepare = 0.0;  // seconds: weights packed, workspace taken
  double run = 0.0;
};

struct StepTime {
  std::int64_t steps = 0;        // measured, after one to warm up
  std::int64_t timed_steps = 0;  // of them, or after them, whose ops were timed
  std::int64_t tokens = 0;       // of one
  double best = 0.0;             // seconds
  double median = 0.0;
  double mean = 0.0;
  double flops = 0.0;       // of one step, as train::flops_per_token counts
  std::vector<OpTime> ops;  // the longest first
  double elsewhere = 0.0;   // seconds of the mean step outside of ops
  train::MemoryPlan planned;
  MemoryUse used;
  std::int64_t plans_made = 0;  // after the warm-up
  double loss = 0.0;            // of the last step: a number, or the step was none
};

struct Options {
  bool ops = true;
  bool step = true;
  bool decode = false;      // one sequence, with weights of the step's dtype
  double seconds = 0.5;     // a case, and the whole step
  std::string filter = "";  // ops whose name holds it
};

struct Report {
  StepShape shape;
  std::int64_t parameters = 0;
  MachineSpeed machine;
  std::vector<CaseTime> ops;
  std::optional<StepTime> step;
  std::optional<DecodeTime> decode;
};

// The shape of the configuration's step.  The tokenizer is opened where it alone tells the vocabulary; no data set is.
// Throws ConfigError, InputError, FileError in one sentence each.
StepShape step_shape(const train::Config& config, const ops::Context& ctx);

// Measures what `options` ask for, on a model with random values and batches of random ids.  `tell` (if any) is given
// the report's lines as they come, without line ends.  Throws what step_shape() throws, InputError for options that make
// no sense, OutOfMemoryError when it does not fit.
Report run_bench(const train::Config& config, const Options& options, const std::function<void(std::string)>& tell);

}  // namespace caravan::bench

// How much memory a training takes, before anything runs: the dry run of one step on the meta device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "caravan/layout/micro_batch.h"
#include "caravan/ops/context.h"
#include "caravan/tensor/allocator.h"
#include "caravan/train/config.h"
#include "caravan/train/setup.h"

namespace caravan::train {

struct MemoryPlan {
  MemoryUse use;                   // of our allocator, to the byte
  std::int64_t staging_bytes = 0;  // the checkpoint writer's copy of the state, outside the allocator, in host memory
  bool on_gpu = false;             // the allocator's memory is a GPU's
  std::optional<std::int64_t> available;  // what this process may use there; nothing where the GPU cannot be asked

  std::int64_t needed() const { return use.high_water + (on_gpu ? 0 : staging_bytes); }
  bool fits() const { return !available || needed() <= *available; }
};

// Micro-batches of full rows with one sequence a row: what the plan assumes where no data were read.
std::vector<MicroBatch> full_batches(const Config& config, int ranks);

// The ids of sampling.prompts where samples are asked for and there is a tokenizer.
using Prompts = std::vector<std::vector<std::int32_t>>;
Prompts sample_prompts(const Config& config, const tokenizer::Tokenizer* tokenizer);

// Walks through building the model, steps over `batches`, an evaluation where validation is on, and samples of
// `prompts`, on the meta device with the thread count and instruction set of this machine.  Throws what the trainer's
// parts throw.
MemoryPlan plan_memory(const Config& config, const model_io::HfConfig& architecture,
                       const std::vector<MicroBatch>& batches, const Prompts& prompts,
                       std::optional<std::int64_t> available);

// The nearest configuration that fits, as key = value changes in the order a user should try them: first activation
// checkpointing, then smaller micro-batches with the same global batch, then shorter rows.  Nothing when none fits.
struct Suggestion {
  std::vector<std::string> changes;  // "--training.local_batch_size 2"
  MemoryPlan plan;
};
std::optional<Suggestion> suggest(const Config& config, const model_io::HfConfig& architecture, const Prompts& prompts,
                                  std::optional<std::int64_t> available);

// The table that plan and train print: a line a segment, staging, the total beside what is available.
std::string format_plan(const MemoryPlan& plan);

// The same with a column of what was really used.
std::string format_used(const MemoryPlan& plan, const MemoryUse& used);

}  // namespace caravan::train

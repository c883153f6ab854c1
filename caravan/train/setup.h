// From a configuration to the values that the trainer is made of: pure functions, nothing is read or allocated.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "caravan/data/rows.h"
#include "caravan/model_io/hf_config.h"
#include "caravan/tokenizer/tokenizer.h"
#include "caravan/train/config.h"
#include "caravan/train/trainer.h"

namespace caravan::train {

// The context that training.device, training.backend and training.threads ask for.
ops::ContextOptions context_options(const Config& config);

// Bytes that training.device has for this process: usable_memory(), or a GPU's Allocator::cuda_capacity(); nothing when
// the GPU cannot be used here, as where a plan is made beforehand on a machine without one.
std::optional<std::int64_t> available_memory(const Config& config);

// The type that the model computes in: mixed_precision_param, where "auto" is bf16 on GPUs and on processors that
// multiply bf16 and f32 on others; f64 with training.dtype float64.
DType compute_dtype(const Config& config, const ops::Context& ctx);

// The architecture that is trained.  `start`: config.json of the directory that training starts from, which explicit
// model keys may not contradict; `tokenizer`: nullptr for data sets of ids.
// Throws ConfigError when sizes are missing or contradict each other, InputError for an unknown flavor, ConfigError
// when the tokenizer has more ids than the vocabulary.
model_io::HfConfig architecture(const Config& config, const std::optional<model_io::HfConfig>& start,
                                const tokenizer::Tokenizer* tokenizer);

// Steps of the whole run: training.steps, or what training.epochs make of `rows_per_epoch`.
std::int64_t total_steps(const Config& config, std::int64_t total_rows, int ranks);

// Micro-batches of one step on each rank: global_batch_size / (local_batch_size ranks).
std::int64_t micro_batches(const Config& config, int ranks);

TrainerOptions trainer_options(const Config& config, std::int64_t steps);
data::RowOptions row_options(const Config& config);

}  // namespace caravan::train

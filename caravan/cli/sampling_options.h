// How tokens are chosen: options that generate and chat share.
#pragma once

#include <vector>

#include "caravan/cli/options.h"
#include "caravan/generate/sampler.h"
#include "caravan/model_io/generation_config.h"
#include "caravan/model_io/hf_config.h"

namespace caravan::cli {

// --greedy, --temperature, --top-k, --top-p, --seed.
std::vector<OptionSpec> sampling_options();

// What --model suggests: its generation_config.json.  A GGUF file suggests nothing.
model_io::GenerationConfig generation_of(const ParsedOptions& options);

// What the user says wins over generation_config.json, whose do_sample counts only when `as_suggested`.
// Throws InputError for --greedy beside an option that samples, ConfigError for a number out of its range.
generate::SamplingOptions sampling_of(const ParsedOptions& options, const model_io::GenerationConfig& config,
                                      bool as_suggested);

// Ids that end a text: generation_config.json's, else config.json's, as far as the model has them.
std::vector<std::int32_t> eos_of(const model_io::GenerationConfig& generation, const model_io::HfConfig& config);

}  // namespace caravan::cli

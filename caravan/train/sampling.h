// Texts that a model in training writes for fixed prompts.
#pragma once

#include <cstdint>
#include <string>

#include "caravan/model_io/load.h"
#include "caravan/tokenizer/tokenizer.h"
#include "caravan/train/config.h"

namespace caravan::train {

// The continuation of `prompt` (special tokens left out), sampled as [sampling] says with the random numbers of (seed,
// step), as far as the model's length allows; empty for a prompt that leaves no room.
std::string sample_text(ops::Context& ctx, const model_io::LoadedModel& model, const tokenizer::Tokenizer& tokenizer,
                        const Config& config, const std::string& prompt, std::int64_t step);

}  // namespace caravan::train

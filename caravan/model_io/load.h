// A model out of a Hugging Face directory.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/checkpoint/safetensors.h"
#include "caravan/model/llama.h"
#include "caravan/model_io/hf_config.h"

namespace caravan::model_io {

// A model with the weights it stands on.
struct LoadedModel {
  HfConfig config;
  std::unique_ptr<autograd::WeightStore> weights;
  std::unique_ptr<model::Llama> llama;
  std::vector<std::string> warnings;  // ignored fields, non-finite weights: one sentence each
};

// How far a long piece of work is: `done` of `total` bytes.
using Progress = std::function<void(std::int64_t done, std::int64_t total)>;

struct LoadOptions {
  // Changes the config before the model is built: numerics that the format leaves open (rounding, pairing).
  std::function<void(model::LlamaConfig&)> adjust;
  bool training = false;     // masters and gradients of zeros beside the weights
  bool check_finite = true;  // look at every weight and warn of NaN and infinity, with tensor and index
  Progress progress;
};

// Reads config.json and all weights of a directory into `dtype`.  On the meta device (a dry run) nothing but headers is
// read. Weights of a model with interleaved pairing are permuted from Hugging Face's order here, never at run time.
// Throws what reading the config and the files throws, and FormatError that names every missing, extra and misshapen
// tensor.
LoadedModel load_model(ops::Context& ctx, const std::filesystem::path& directory, DType dtype,
                       const LoadOptions& options = {});

// A model with initial values from `seed`, nothing read; with masters and gradients of zeros for `training`.
LoadedModel create_model(ops::Context& ctx, const HfConfig& config, DType dtype, std::uint64_t seed,
                         bool training = false);

// Compares the tensors of a directory with the table of its architecture.  Returns one sentence for each kind of
// disagreement (missing, extra, misshapen, no float), all names in it; empty when they agree.
// Not counted as extra: `rotary_emb.inv_freq` buffers of old files, and the lm_head.weight of a tied model.
std::vector<std::string> disagreements(const checkpoint::SafetensorsSet& files, const std::vector<ParamSpec>& specs);

}  // namespace caravan::model_io

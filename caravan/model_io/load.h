// A model out of a Hugging Face directory, a GGUF file or a directory of TransformerEngine's names.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/model/llama.h"
#include "caravan/model_io/hf_config.h"
#include "caravan/model_io/model_files.h"

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

// How a model holds its matrices.
enum class MatrixForm {
  kNumbers,   // converted to the dtype; blocks are dequantised
  kAsStored,  // where they lie in the mapped files, in the files' types: products compute from there
  kAuto,      // kAsStored where a matrix of a GGUF file is blocks of codes, otherwise kNumbers
};

struct LoadOptions {
  // Changes the config before the model is built: numerics that the format leaves open (rounding, pairing).
  std::function<void(model::LlamaConfig&)> adjust;
  bool training = false;  // masters and gradients of zeros beside the weights
  MatrixForm matrices = MatrixForm::kNumbers;
  // Look at every weight and warn of NaN and infinity, with tensor and index; not at matrices as stored, which are not
  // read before they are used.
  bool check_finite = true;
  Progress progress;
};

// Reads the configuration and all weights of a model (see open_model) into `dtype`, which activations have too.  On the
// meta device (a dry run) nothing but headers is read.  Weights are permuted from the file's pairing to the model's here,
// never at run time; with matrices as stored the model takes the file's pairing.
// Throws what open_model throws, and InputError for the training of matrices as stored.
LoadedModel load_model(ops::Context& ctx, const std::filesystem::path& path, DType dtype,
                       const LoadOptions& options = {});

// Rows [begin, end) of a part into a tensor of that shape, converted once to its type.  `pairing` is the order of rows
// that the tensor wants for q and k.
void fill_rows(const ModelFiles& files, std::size_t part, std::int64_t begin, std::int64_t end, const Tensor& target,
               ops::RopePairing pairing, int threads);

// A model with initial values from `seed`, nothing read; with masters and gradients of zeros for `training`.
LoadedModel create_model(ops::Context& ctx, const HfConfig& config, DType dtype, std::uint64_t seed,
                         bool training = false);

}  // namespace caravan::model_io

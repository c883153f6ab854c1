// What a training checkpoint says beyond its tensors, and how a run finds where to go on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "caravan/base/json.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "caravan/model_io/hf_config.h"
#include "caravan/model_io/model_files.h"
#include "caravan/train/config.h"
#include "caravan/train/trainer.h"

namespace caravan::train {

// Facts that have to be the same for a resumed run to give the same bits.
struct Machine {
  std::string version;
  std::string isa;
  std::int64_t threads = 0;
  std::string backend;
  std::string compute_dtype;

  bool operator==(const Machine&) const = default;
};
Machine machine_of(const ops::Context& ctx, DType compute);

// The data set that `next_row` counts in.
struct DataIdentity {
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  std::int64_t seq_len = 0;
  std::string packing;
  bool shuffle = false;
  std::int64_t seed = 0;

  bool operator==(const DataIdentity&) const = default;
};

// The manifest's state: {"step", "optimizer_steps", "schedule_steps" (without it: step), "n_tokens_seen", "next_row",
// "data", "machine", "model" (config.json), "config" (TOML)}.
struct TrainState {
  std::int64_t step = 0;
  std::int64_t optimizer_steps = 0;
  std::int64_t schedule_steps = 0;  // the learning rate's clock
  std::int64_t n_tokens_seen = 0;
  std::int64_t next_row = 0;
  // Of a run in float16; in the manifest as "loss_scale" and "loss_scale_good_steps".
  std::optional<optim::LossScaler> loss_scaler;
  DataIdentity data;
  Machine machine;
  std::string model;   // config.json's text
  std::string config;  // TOML
};
Json to_json(const TrainState& state);
// Throws FormatError naming `source` and the field.
TrainState parse_train_state(const Json& json, const std::string& source);

// Which parts of a checkpoint are taken over.
struct LoadParts {
  bool optimizer = true;
  bool lr_scheduler = true;  // the learning rate's clock
  bool dataloader = true;
  bool train_state = true;  // the numbers of steps and tokens
};

// Whether there is more in it than weights (checkpoint.last_save_model_only).
bool holds_optimizer(const checkpoint::CheckpointReader& reader);

// Reads the tensors into the trainer and returns the state.  Throws ConfigError when the checkpoint holds another model
// (naming the first difference) or lacks the optimizer that `parts` wants, FormatError when it is damaged.
TrainState load_into(Trainer& trainer, const checkpoint::CheckpointReader& reader, const LoadParts& parts);

// One sentence for each fact that changed since the checkpoint was written: bits may differ from an undisturbed run.
std::vector<std::string> changes_since(const TrainState& saved, const DataIdentity& data, const Machine& machine);

// One sentence for each entry of config.json that differs from the checkpoint's.  Throws ConfigError for those that
// shapes do not tell and weights cannot survive: the numbers of heads.
std::vector<std::string> model_changes(const TrainState& saved, const model_io::HfConfig& architecture);

// The model of a checkpoint without its optimizer, as files to convert: weights are views of the checkpoint, hashes
// checked.  Throws FileError, FormatError.
model_io::ModelFiles open_checkpoint_files(const std::filesystem::path& directory);

// Whether a directory is a training checkpoint: it has a manifest.json.
bool is_checkpoint(const std::filesystem::path& directory);

}  // namespace caravan::train

// The folder of a run: checkpoints, assets, the exported model.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "caravan/base/directory.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "caravan/train/config.h"
#include "caravan/train/resume.h"
#include "caravan/train/trainer.h"

namespace caravan::train {

struct Resumed {
  TrainState state;
  bool same_run = false;    // from this run's own folder, not from checkpoint.initial_load_path
  bool model_only = false;  // a last save of the weights alone: nothing to train on from
};

class Outputs {
 public:
  explicit Outputs(const Config& config);

  // Makes every folder that will be written to and proves that it can be, removes what killed runs were staging there:
  // before anything costs time.  Writes config.toml.  Throws FileError, also when another run has the folder.
  void prepare_folders();
  // Whether the checkpoint that the configuration asks for can be one.  Throws ConfigError, FileError, FormatError.
  void check_start() const;
  // Copies tokenizer files (and, unless the start model has its own, a generation_config.json that samples as
  // [sampling] says) into assets/, where export and `caravan convert` find them.
  void keep_assets(std::vector<std::filesystem::path>& companions, const model_io::HfConfig& architecture,
                   bool write_generation_config);

  // The newest whole checkpoint of this folder (or the one of checkpoint.load_step), else what
  // checkpoint.initial_load_path says, read into the trainer; nothing when training begins from its initial values or
  // from a Hugging Face directory.  Tells on `out` what it chose and what it passed over.
  std::optional<Resumed> resume(Trainer& trainer, std::ostream& out);

  // `wait`: it is done when this returns; `final`: nothing will be trained after it.
  void save(const Trainer& trainer, const TrainState& state, bool wait, bool final);
  // Throws the failure of a save that ended in the meantime; `wait`: of one under way too, when it ends.
  void check_saving(bool wait);
  // Waits for a save under way; a failure of it is kept quiet.
  void finish_saving() noexcept;
  // The newest complete checkpoint of this folder, or empty.
  std::filesystem::path newest_checkpoint() const;

  // Writes the Hugging Face directory and returns it, unless it is there already, of this step and dtype.
  std::filesystem::path export_model(const model_io::LoadedModel& model, std::int64_t step,
                                     const std::vector<std::filesystem::path>& companions);

  // What was exported is of other weights as soon as a step is trained.
  void forget_export();

  const std::filesystem::path& folder() const { return folder_; }

 private:
  void lock_folder();
  void warn_of_higher_steps(std::int64_t step, const LoadParts& parts, std::ostream& out) const;

  const Config& config_;
  std::filesystem::path folder_;
  std::optional<DirectoryLock> lock_;  // on folder_
  checkpoint::CheckpointStore store_;
};

}  // namespace caravan::train

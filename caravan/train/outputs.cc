#include "caravan/train/outputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

#include "caravan/base/directory.h"
#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/model_io/save.h"
#include "caravan/train/config_keys.h"

namespace caravan::train {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kSmallFile = 1 << 20;
constexpr const char* kExported = "exported.json";  // what the Hugging Face directory was made of

void make_folder(const fs::path& folder) {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) {
    throw FileError(fmt::format("{}: cannot be made: {}", folder.string(), failure.message()));
  }
}

DType export_dtype(const std::string& name) {
  return name == "bfloat16" ? DType::kBF16 : name == "float16" ? DType::kF16 : DType::kF32;
}

bool taken(const std::vector<std::string>& excluded, const char* name) {
  return std::ranges::find(excluded, name) == excluded.end();
}

LoadParts parts_of(const CheckpointSection& section) {
  return {taken(section.exclude_from_loading, "optimizer"), taken(section.exclude_from_loading, "lr_scheduler"),
          taken(section.exclude_from_loading, "dataloader"), taken(section.exclude_from_loading, "train_state")};
}

// The mistakes that are made with checkpoint.initial_load_path.
void require_checkpoint(const fs::path& path) {
  if (is_checkpoint(path)) {
    return;
  }
  const auto refuse = [&](const std::string& why) {
    throw ConfigError(fmt::format("checkpoint.initial_load_path {}: {}", path.string(), why));
  };
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    refuse("there is no such directory; name a checkpoint, as FOLDER/checkpoint/step-100");
  }
  for (const fs::path& folder : {path, path / "checkpoint"}) {
    const std::vector<std::int64_t> steps = checkpoint::complete_steps(folder);
    if (!steps.empty()) {
      refuse(fmt::format("is a folder of checkpoints; name one of them, as {}",
                         checkpoint::step_directory(folder, steps.back()).string()));
    }
  }
  if (fs::exists(path / "config.json", ignored)) {
    refuse("is a Hugging Face folder; set checkpoint.initial_load_in_hf");
  }
  refuse("holds no checkpoint; name one, as FOLDER/checkpoint/step-100");
}

void require_step(const fs::path& folder, std::int64_t step) {
  const std::vector<std::int64_t> steps = checkpoint::complete_steps(folder);
  if (std::ranges::find(steps, step) == steps.end()) {
    throw ConfigError(fmt::format("checkpoint.load_step {}: {} has no whole checkpoint of that step; {}", step,
                                  folder.string(),
                                  steps.empty() ? "it has none" : fmt::format("there are {}", fmt::join(steps, ", "))));
  }
}

// Whether the marker of an export says this; a damaged one says nothing.
bool says(const fs::path& marker, const Json& exported) {
  try {
    return parse_json(read_text_file(marker, kSmallFile), marker.string()) == exported;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

Outputs::Outputs(const Config& config)
    : config_(config),
      folder_(config.job.dump_folder),
      store_({folder_ / config.checkpoint.folder, config.checkpoint.keep_latest_k}) {}

void Outputs::prepare_folders() {
  make_folder(folder_);
  // First, for the locks: the folder may be another run's.
  std::error_code ignored;
  if (config_.checkpoint.enable) {
    store_.prepare();
  }
  if (!config_.checkpoint.enable || !fs::equivalent(folder_, folder_ / config_.checkpoint.folder, ignored)) {
    lock_folder();
  }
  for (const fs::path& folder :
       {folder_, folder_ / "data", folder_ / "assets", (folder_ / config_.checkpoint.hf_folder).parent_path()}) {
    remove_stale_staging(folder);
  }
  // Its own first file proves that the folder can be written to.
  write_text_file(folder_ / "config.toml", print_toml(config_));
}

void Outputs::lock_folder() {
  std::optional<DirectoryLock> lock = DirectoryLock::take(folder_);
  if (!lock) {
    throw FileError(fmt::format("{}: another run writes into this folder; end it or choose another job.dump_folder",
                                folder_.string()));
  }
  lock_.emplace(std::move(*lock));
}

void Outputs::keep_assets(std::vector<fs::path>& companions, const model_io::HfConfig& architecture,
                          bool write_generation_config) {
  const fs::path assets = folder_ / "assets";
  make_folder(assets);
  for (fs::path& companion : companions) {
    const fs::path kept = assets / companion.filename();
    write_text_file(kept, read_text_file(companion, std::int64_t{1} << 30));
    companion = kept;
  }
  if (write_generation_config) {
    Json json = parse_json(model_io::format_generation_config(architecture), "generation_config.json");
    json.erase("_from_model_config");
    json["do_sample"] = config_.sampling.temperature > 0.0;
    if (config_.sampling.temperature > 0.0) {
      json["temperature"] = config_.sampling.temperature;
      json["top_k"] = config_.sampling.top_k;
      json["top_p"] = config_.sampling.top_p;
    }
    write_text_file(assets / "generation_config.json", json.dump(2) + "\n");
    companions.push_back(assets / "generation_config.json");
  }
}

// A run that went back leaves the checkpoints above it, and the next one finds them.
void Outputs::warn_of_higher_steps(std::int64_t step, const LoadParts& parts, std::ostream& out) const {
  const fs::path folder = folder_ / config_.checkpoint.folder;
  const bool chosen = config_.checkpoint.load_step >= 0;
  const std::int64_t newest = checkpoint::complete_steps(folder).back();
  if ((chosen || !parts.train_state) && newest > step) {
    out << fmt::format(
        "warning: {} stays, and a run without checkpoint.{} goes on from the highest step; remove what is above {} if "
        "that should not be\n",
        checkpoint::step_directory(folder, newest).string(), chosen ? "load_step" : "exclude_from_loading", step);
  }
}

void Outputs::check_start() const {
  const CheckpointSection& section = config_.checkpoint;
  const fs::path folder = folder_ / section.folder;
  if (section.enable && section.load_step >= 0) {
    require_step(folder, section.load_step);
  } else if (section.enable && !checkpoint::complete_steps(folder).empty()) {
    return;  // the run's own come first
  } else if (!section.initial_load_path.empty() && !section.initial_load_in_hf) {
    require_checkpoint(section.initial_load_path);
    checkpoint::CheckpointReader::open(section.initial_load_path);
  }
}

std::optional<Resumed> Outputs::resume(Trainer& trainer, std::ostream& out) {
  const CheckpointSection& section = config_.checkpoint;
  const fs::path folder = folder_ / section.folder;
  if (section.enable) {
    std::optional<checkpoint::CheckpointReader> reader;
    if (section.load_step >= 0) {
      reader = checkpoint::CheckpointReader::open(checkpoint::step_directory(folder, section.load_step));
    } else {
      std::vector<std::string> warnings;
      reader = checkpoint::open_newest(folder, warnings);
      for (const std::string& warning : warnings) {
        out << "warning: " << warning << "\n";
      }
    }
    if (reader) {
      LoadParts parts = parts_of(section);
      const bool model_only = parts.optimizer && !holds_optimizer(*reader);
      parts.optimizer = parts.optimizer && !model_only;
      const TrainState state = load_into(trainer, *reader, parts);
      out << fmt::format("going on from {}: step {}{}\n", reader->directory().string(), state.step,
                         section.exclude_from_loading.empty()
                             ? ""
                             : fmt::format("; afresh, as checkpoint.exclude_from_loading says: {}",
                                           fmt::join(section.exclude_from_loading, ", ")));
      warn_of_higher_steps(state.step, parts, out);
      return Resumed{state, /*same_run=*/true, model_only};
    }
  }
  if (section.initial_load_path.empty() || section.initial_load_in_hf) {
    return std::nullopt;
  }
  const auto reader = checkpoint::CheckpointReader::open(section.initial_load_path);
  LoadParts parts = parts_of(section);
  if (section.initial_load_model_only) {
    parts = {.optimizer = false, .lr_scheduler = false, .dataloader = false, .train_state = false};
  }
  const TrainState state = load_into(trainer, reader, parts);
  out << fmt::format("starting from {}{}\n", reader.directory().string(),
                     section.initial_load_model_only ? " (the model alone)" : "");
  return Resumed{state, /*same_run=*/false};
}

void Outputs::save(const Trainer& trainer, const TrainState& state, bool wait, bool final) {
  const bool model_only = config_.checkpoint.last_save_model_only && final;
  const std::vector<checkpoint::NamedTensor> tensors = model_only ? trainer.model_tensors() : trainer.tensors();
  if (wait || config_.checkpoint.async_mode == "disabled") {
    store_.save(state.step, tensors, to_json(state));
  } else {
    store_.save_async(state.step, tensors, to_json(state));
  }
}

void Outputs::check_saving(bool wait) {
  if (wait || !store_.busy()) {
    store_.wait();
  }
}

void Outputs::finish_saving() noexcept {
  try {
    store_.wait();
  } catch (const std::exception&) {
    // The run ends for another reason, which is the one to tell.
  }
}

fs::path Outputs::newest_checkpoint() const {
  const std::int64_t step = store_.newest();
  const fs::path directory = checkpoint::step_directory(folder_ / config_.checkpoint.folder, step);
  // Somebody may have removed it since.
  return step < 0 || !is_checkpoint(directory) ? fs::path() : directory;
}

fs::path Outputs::export_model(const model_io::LoadedModel& model, std::int64_t step,
                               const std::vector<fs::path>& companions) {
  const fs::path directory = folder_ / config_.checkpoint.hf_folder;
  const Json exported = {{"step", step}, {"dtype", config_.checkpoint.export_dtype}};
  std::error_code ignored;
  if (says(folder_ / kExported, exported) && fs::is_regular_file(directory / "config.json", ignored)) {
    return directory;
  }
  model_io::SaveOptions options;
  options.dtype = export_dtype(config_.checkpoint.export_dtype);
  options.replace = true;
  options.companions = companions;
  model_io::save_model(model, directory, options);
  write_text_file(folder_ / kExported, exported.dump() + "\n");
  return directory;
}

void Outputs::forget_export() {
  std::error_code failure;
  fs::remove(folder_ / kExported, failure);
  if (failure) {
    throw FileError(fmt::format("{}: cannot be removed: {}", (folder_ / kExported).string(), failure.message()));
  }
}

}  // namespace caravan::train

// What single keys cannot tell.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/model/presets.h"
#include "caravan/tensor/device.h"
#include "caravan/train/config_keys.h"

namespace caravan::train {

namespace {

void check_parallelism(const ParallelismSection& parallelism) {
  const std::array<std::pair<const char*, std::int64_t>, 5> degrees = {{
      {"data_parallel_replicate_degree", parallelism.data_parallel_replicate_degree},
      {"data_parallel_shard_degree", parallelism.data_parallel_shard_degree},
      {"tensor_parallel_degree", parallelism.tensor_parallel_degree},
      {"pipeline_parallel_degree", parallelism.pipeline_parallel_degree},
      {"context_parallel_degree", parallelism.context_parallel_degree},
  }};
  for (const auto& [name, degree] : degrees) {
    if (degree > 1) {
      throw UnsupportedError(
          fmt::format("parallelism.{} {}: several ranks come with multi-process training; use 1", name, degree));
    }
  }
}

void check_training(const TrainingSection& training) {
  if (training.global_batch_size > 0 && training.global_batch_size % training.local_batch_size != 0) {
    throw ConfigError(
        fmt::format("training.global_batch_size {} is not a multiple of training.local_batch_size {}; a step is whole "
                    "micro-batches",
                    training.global_batch_size, training.local_batch_size));
  }
  if (training.epochs > 0 && training.steps) {
    throw ConfigError(
        fmt::format("training.steps {} and training.epochs {} are both set; remove one of them (on a command line: "
                    "--training.steps unset, or --training.epochs 0)",
                    *training.steps, training.epochs));
  }
  const std::size_t weights = training.dataset_weights.size();
  if (weights > 0 && weights != training.dataset_path.size()) {
    throw ConfigError(fmt::format(
        "training.dataset_weights has {} numbers and training.dataset_path {} paths; give one number for each path",
        weights, training.dataset_path.size()));
  }
  if (weights > 0 && training.epochs > 0) {
    throw ConfigError(
        "training.dataset_weights and training.epochs are both set, but a mixture has no end that all its data sets "
        "reach together; use training.steps");
  }
  const bool on_gpu = parse_device(training.device).kind == DeviceKind::kCuda;
  if (on_gpu && training.backend == "ref") {
    throw ConfigError(
        fmt::format("training.backend ref computes on the processor, and training.device is {}; remove one of them",
                    training.device));
  }
  if (training.dtype == "float64" && training.backend != "ref" && !on_gpu) {
    throw ConfigError(
        "training.dtype float64 is computed by training.backend ref, or on a GPU (training.device cuda), alone; set "
        "one of "
        "them, or use float32");
  }
  if (!std::has_single_bit(static_cast<std::uint64_t>(training.loss_scale))) {
    throw ConfigError(fmt::format("training.loss_scale {} is no power of two: scaling by it would round gradients",
                                  training.loss_scale));
  }
  if (training.dtype == "float64" && training.mixed_precision_param != "auto") {
    throw ConfigError(fmt::format("training.mixed_precision_param {} contradicts training.dtype float64; use auto",
                                  training.mixed_precision_param));
  }
}

void check_flavor(const std::string& flavor) {
  // torchtitan's names of the same architectures.
  constexpr std::array<std::pair<const char*, const char*>, 4> kNames = {
      {{"debugmodel", "torchtitan-debug"}, {"8B", "llama3-8b"}, {"70B", "llama3-70b"}, {"405B", "llama3-405b"}}};
  for (const auto& [theirs, ours] : kNames) {
    if (flavor == theirs) {
      throw ConfigError(fmt::format("model.flavor \"{}\" is torchtitan's name; here it is \"{}\"", theirs, ours));
    }
  }
  if (!flavor.empty()) {
    try {
      model::preset(flavor);
    } catch (const InputError& error) {
      throw ConfigError(fmt::format("model.flavor: {}", error.what()));
    }
  }
}

void check_activation_checkpoint(const ActivationCheckpointSection& section) {
  const std::string& option = section.selective_ac_option;
  std::int64_t layers = 0;
  const auto [end, error] = std::from_chars(option.data(), option.data() + option.size(), layers);
  const bool number = error == std::errc{} && end == option.data() + option.size() && layers >= 1;
  if (option != "op" && !number) {
    throw ConfigError(
        fmt::format("activation_checkpoint.selective_ac_option: expected \"op\" or a whole number, at least 1, as a "
                    "text, found \"{}\"",
                    printable(option, 60)));
  }
}

void check_not_empty(const char* name, const std::string& value) {
  if (value.empty()) {
    throw ConfigError(fmt::format("{}: expected a folder's name, found an empty text", name));
  }
}

// Folders of a run that hold different things.
void check_folders(const Config& config) {
  const std::string& model = config.checkpoint.hf_folder;
  for (const std::string& other :
       {config.checkpoint.folder, config.metrics.save_tb_folder, std::string("data"), std::string("assets")}) {
    if (model == other) {
      throw ConfigError(fmt::format(
          "checkpoint.hf_folder \"{}\" is a folder of the run that holds something else; choose another name", model));
    }
  }
}

}  // namespace

void validate(const Config& config) {
  check_not_empty("job.dump_folder", config.job.dump_folder);
  check_not_empty("checkpoint.folder", config.checkpoint.folder);
  check_not_empty("checkpoint.hf_folder", config.checkpoint.hf_folder);
  check_not_empty("metrics.save_tb_folder", config.metrics.save_tb_folder);
  check_folders(config);
  check_flavor(config.model.flavor);
  check_training(config.training);
  check_parallelism(config.parallelism);
  check_activation_checkpoint(config.activation_checkpoint);
  if (config.checkpoint.initial_load_in_hf && config.checkpoint.initial_load_path.empty()) {
    throw ConfigError(
        "checkpoint.initial_load_in_hf is true but checkpoint.initial_load_path is not set; name the "
        "Hugging Face folder there");
  }
  if (config.checkpoint.initial_load_in_hf && !config.checkpoint.initial_load_model_only) {
    throw ConfigError(
        "checkpoint.initial_load_in_hf: a Hugging Face folder holds weights alone; leave "
        "checkpoint.initial_load_model_only true");
  }
  if (config.validation.enable && config.validation.dataset_path.empty() && config.validation.fraction == 0.0) {
    throw ConfigError(
        "validation.enable is true but there is nothing to measure on; set validation.dataset_path or "
        "validation.fraction");
  }
  if (!config.validation.dataset_path.empty() && config.validation.fraction > 0.0) {
    throw ConfigError("validation.dataset_path and validation.fraction are both set; remove one of them");
  }
  if (config.sampling.freq > 0 && config.sampling.prompts.empty()) {
    throw ConfigError("sampling.freq is set but sampling.prompts is empty; give a prompt, or 0");
  }
}

}  // namespace caravan::train

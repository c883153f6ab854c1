#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/shared_options.h"
#include "caravan/model/presets.h"
#include "caravan/model_io/save.h"
#include "caravan/train/resume.h"

namespace caravan::cli {

namespace {

constexpr std::int64_t kMaxConfigBytes = std::int64_t{16} << 20;

OptionSpec dtype_option(const char* help, const char* note) {
  return {.name = "--dtype",
          .value_name = "TYPE",
          .kind = OptionKind::kChoice,
          .help = help,
          .default_value = "",
          .default_note = note,
          .choices = {"f32", "bf16", "f16", "f64"}};
}

std::vector<OptionSpec> writing_options() {
  return {
      {.name = "--max-shard-bytes",
       .value_name = "N",
       .kind = OptionKind::kInteger,
       .help = "cut the weights into files of at most so many bytes",
       .default_value = "5000000000",
       .minimum = 1},
      {.name = "--config-dialect",
       .value_name = "NAME",
       .kind = OptionKind::kChoice,
       .help =
           "how config.json says the rotary embedding: rope_scaling is read by every transformers, rope_parameters by "
           "5 and later",
       .default_value = "rope_scaling",
       .choices = {"rope_scaling", "rope_parameters"}},
      {.name = "--replace", .value_name = "", .kind = OptionKind::kFlag, .help = "replace TARGET if it exists"},
  };
}

model_io::SaveOptions save_options(const ParsedOptions& options, DType dtype) {
  model_io::SaveOptions result;
  result.dtype = dtype;
  result.max_shard_bytes = options.integer("--max-shard-bytes").value();
  result.replace = options.has("--replace");
  result.dialect = options.text("--config-dialect") == "rope_parameters" ? model_io::RopeDialect::kRopeParameters
                                                                         : model_io::RopeDialect::kRopeScaling;
  return result;
}

ops::Context plain_context(const ParsedOptions& options) {
  return ops::make_context({.backend = ops::Backend::kCpu,
                            .dry_run = false,
                            .threads = static_cast<int>(options.integer("--threads").value_or(0)),
                            .memory_capacity = 0});
}

// The float types that the files' tensors have, by name.
std::map<std::string, DType> stored_dtypes(const std::filesystem::path& directory) {
  const checkpoint::SafetensorsSet files = checkpoint::SafetensorsSet::open(directory);
  std::map<std::string, DType> result;
  for (const std::string& name : files.names()) {
    const std::optional<DType> dtype = files.find(name)->entry->dtype;
    if (dtype && is_compute_float(*dtype)) {
      result[name] = *dtype;
    }
  }
  return result;
}

// The smallest type that holds every value of all of them: the one itself, f32 of several, f64 if there is one.
DType covering(const std::map<std::string, DType>& dtypes) {
  DType result = dtypes.empty() ? DType::kF32 : dtypes.begin()->second;
  for (const auto& [name, dtype] : dtypes) {
    if (dtype != result) {
      result = dtype == DType::kF64 || result == DType::kF64 ? DType::kF64 : DType::kF32;
    }
  }
  return result;
}

// Replacing a directory removes it, and with it a source that is the target or lies in it.
void refuse_target_over_source(const std::filesystem::path& source, const std::filesystem::path& target) {
  std::error_code ignored;
  const std::filesystem::path root = std::filesystem::weakly_canonical(target, ignored);
  const std::filesystem::path inner = std::filesystem::weakly_canonical(source, ignored);
  for (std::filesystem::path at = inner; !root.empty() && at != at.parent_path(); at = at.parent_path()) {
    if (at == root) {
      throw InputError(
          fmt::format("convert: the target {} holds the source {}; write beside it", target.string(), source.string()));
    }
  }
}

// A checkpoint of a training becomes a model directory; tokenizer and generation settings come from the run's folder.
int convert_checkpoint(const ParsedOptions& options, Streams streams) {
  const std::filesystem::path source = options.path("SOURCE");
  ops::Context ctx = plain_context(options);
  const model_io::LoadedModel model = train::load_checkpoint_model(ctx, source, DType::kF32);
  const DType dtype = options.has("--dtype") ? dtype_of(options, "--dtype") : DType::kF32;
  model_io::SaveOptions save = save_options(options, dtype);
  const std::filesystem::path run = std::filesystem::absolute(source).lexically_normal().parent_path().parent_path();
  save.companions = model_io::companion_files(run / "assets");
  model_io::save_model(model, options.path("TARGET"), save);
  streams.out << fmt::format("{}: {} parameters in {}, from a checkpoint\n", options.text("TARGET"),
                             human_count(parameter_count(model.weights->specs())), to_string(dtype));
  return 0;
}

int run_convert(const ParsedOptions& options, Streams streams) {
  const std::filesystem::path source = options.path("SOURCE");
  refuse_target_over_source(source, options.path("TARGET"));
  if (train::is_checkpoint(source)) {
    return convert_checkpoint(options, streams);
  }
  model_io::read_hf_config(source);  // its complaints come before those about weights
  const std::map<std::string, DType> dtypes = stored_dtypes(source);
  const DType loaded = covering(dtypes);
  ops::Context ctx = plain_context(options);
  const model_io::LoadedModel model = model_io::load_model(ctx, source, loaded);
  print_warnings(streams, model.warnings);
  model_io::SaveOptions save = save_options(options, options.has("--dtype") ? dtype_of(options, "--dtype") : loaded);
  if (!options.has("--dtype")) {
    save.dtypes = dtypes;
  }
  save.companions = model_io::companion_files(source);
  model_io::save_model(model, options.path("TARGET"), save);
  streams.out << fmt::format("{}: {} parameters in {}\n", options.text("TARGET"),
                             human_count(parameter_count(model.weights->specs())),
                             options.has("--dtype") ? to_string(save.dtype) : "the source's types");
  return 0;
}

int run_init(const ParsedOptions& options, Streams streams) {
  const std::string architecture = options.text("ARCHITECTURE");
  model_io::HfConfig config;
  if (architecture.ends_with(".json")) {
    config = model_io::parse_hf_config(read_text_file(architecture, kMaxConfigBytes), architecture);
  } else {
    config.model = model::preset(architecture);
    config.bos_token_id = 1;
    config.eos_token_ids = {2};
  }
  const DType dtype = options.has("--dtype") ? dtype_of(options, "--dtype") : config.dtype.value_or(DType::kF32);
  ops::Context ctx = plain_context(options);
  const auto seed = static_cast<std::uint64_t>(options.integer("--seed").value());
  const model_io::LoadedModel model = model_io::create_model(ctx, config, dtype, seed);
  model_io::save_model(model, options.path("TARGET"), save_options(options, dtype));
  streams.out << fmt::format("{}: {} parameters in {}, seed {}\n", options.text("TARGET"),
                             human_count(parameter_count(model.weights->specs())), to_string(dtype), seed);
  return 0;
}

int run_presets(const ParsedOptions& options, Streams streams) {
  Json all = Json::array();
  for (const model::Preset& one : model::presets()) {
    const std::int64_t parameters = parameter_count(model::parameter_specs(one.config));
    if (options.has("--json")) {
      all.push_back({{"name", one.name}, {"description", one.description}, {"parameters", parameters}});
    } else {
      streams.out << fmt::format("{:<18}{:>8}  {}\n", one.name, human_count(parameters), one.description);
    }
  }
  if (options.has("--json")) {
    streams.out << all.dump() << "\n";
  }
  return 0;
}

}  // namespace

Command convert_command() {
  CommandSpec spec;
  spec.name = "convert";
  spec.summary = "write a model directory from another one or from a checkpoint";
  spec.description =
      "Reads a Hugging Face directory, or a checkpoint of a training (its step-N directory), and writes one that "
      "transformers loads, tokenizer files included, in another type or cut into other files if asked. The target is "
      "complete or not there at all; free space is checked before the first byte.";
  spec.options = {
      {.name = "SOURCE",
       .value_name = "",
       .kind = OptionKind::kDirectory,
       .help = "Hugging Face model directory, or a checkpoint",
       .required = true,
       .positional = true},
      {.name = "TARGET",
       .value_name = "",
       .kind = OptionKind::kDirectory,
       .help = "directory to write",
       .required = true,
       .positional = true},
      dtype_option("type of the written weights", "the source's"),
  };
  for (OptionSpec& option : writing_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.examples = {"caravan convert DIR DIR-bf16 --dtype bf16"};
  return {spec, run_convert};
}

Command init_command() {
  CommandSpec spec;
  spec.name = "init";
  spec.summary = "write a model with initial values";
  spec.description =
      "Makes a model directory from a preset (see `caravan presets`) or a config.json. Initial values depend on the "
      "seed, "
      "the parameter's name and the element's index alone: the same on every machine.";
  spec.options = {
      {.name = "ARCHITECTURE",
       .value_name = "",
       .kind = OptionKind::kText,
       .help = "a preset's name, or a config.json's path",
       .required = true,
       .positional = true},
      {.name = "TARGET",
       .value_name = "",
       .kind = OptionKind::kDirectory,
       .help = "directory to write",
       .required = true,
       .positional = true},
      {.name = "--seed",
       .value_name = "N",
       .kind = OptionKind::kInteger,
       .help = "seed of the initial values",
       .default_value = "0",
       .minimum = 0},
      dtype_option("type of the written weights", "config.json's, else f32"),
  };
  for (OptionSpec& option : writing_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.examples = {"caravan init tiny DIR --seed 1"};
  return {spec, run_init};
}

Command presets_command() {
  CommandSpec spec;
  spec.name = "presets";
  spec.summary = "list the known architectures and their sizes";
  spec.description = "Prints name, parameters and description of every preset that `caravan init` takes.";
  spec.options = {json_option()};
  return {spec, run_presets};
}

}  // namespace caravan::cli

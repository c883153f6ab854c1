#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/shared_options.h"
#include "caravan/model/presets.h"
#include "caravan/model_io/save.h"

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

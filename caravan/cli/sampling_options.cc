#include "caravan/cli/sampling_options.h"

#include <fmt/format.h>

#include "caravan/base/error.h"
#include "caravan/checkpoint/gguf.h"

namespace caravan::cli {

std::vector<OptionSpec> sampling_options() {
  return {
      {.name = "--greedy", .value_name = "", .kind = OptionKind::kFlag, .help = "take the likeliest token every time"},
      {.name = "--temperature",
       .value_name = "T",
       .kind = OptionKind::kNumber,
       .help = "sample, logits divided by T first",
       .default_note = "generation_config.json's, else 1"},
      {.name = "--top-k",
       .value_name = "K",
       .kind = OptionKind::kInteger,
       .help = "sample among the K likeliest tokens, 0 for all",
       .default_note = "generation_config.json's, else 50",
       .minimum = 0},
      {.name = "--top-p",
       .value_name = "P",
       .kind = OptionKind::kNumber,
       .help = "sample among the fewest tokens whose probabilities reach P",
       .default_note = "generation_config.json's, else 1"},
      {.name = "--seed",
       .value_name = "S",
       .kind = OptionKind::kInteger,
       .help = "of the random numbers; the same seed gives the same tokens",
       .default_value = "0",
       .minimum = 0},
  };
}

model_io::GenerationConfig generation_of(const ParsedOptions& options) {
  const std::filesystem::path path = options.path("--model");
  return checkpoint::is_gguf(path) ? model_io::GenerationConfig{} : model_io::read_generation_config(path);
}

generate::SamplingOptions sampling_of(const ParsedOptions& options, const model_io::GenerationConfig& config,
                                      bool as_suggested) {
  for (const char* name : {"--temperature", "--top-k", "--top-p"}) {
    if (options.has("--greedy") && options.has(name)) {
      throw InputError(fmt::format("--greedy takes the likeliest token, {} samples; give one of them", name));
    }
  }
  generate::SamplingOptions sampling;
  const bool told = options.has("--temperature") || options.has("--top-k") || options.has("--top-p");
  const bool suggested = as_suggested && config.do_sample.value_or(false);
  sampling.do_sample = !options.has("--greedy") && (told || suggested);
  const auto number = [&](const char* name, std::optional<double> from_file, double otherwise) {
    return options.has(name) ? options.number(name).value() : from_file.value_or(otherwise);
  };
  sampling.temperature = number("--temperature", config.temperature, sampling.temperature);
  sampling.top_p = number("--top-p", config.top_p, sampling.top_p);
  sampling.top_k = options.has("--top-k") ? options.integer("--top-k").value() : config.top_k.value_or(sampling.top_k);
  sampling.seed = static_cast<std::uint64_t>(options.integer("--seed").value());
  generate::validate(sampling);
  return sampling;
}

std::vector<std::int32_t> eos_of(const model_io::GenerationConfig& generation, const model_io::HfConfig& config) {
  std::vector<std::int32_t> result;
  for (const std::int64_t id : generation.eos_token_ids.empty() ? config.eos_token_ids : generation.eos_token_ids) {
    if (id >= 0 && id < config.model.vocab_size) {
      result.push_back(static_cast<std::int32_t>(id));
    }
  }
  return result;
}

}  // namespace caravan::cli

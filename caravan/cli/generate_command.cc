#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/shared_options.h"
#include "caravan/generate/generate.h"
#include "caravan/model_io/generation_config.h"
#include "caravan/tokenizer/tokenizer.h"
#include "caravan/train/resume.h"

namespace caravan::cli {

namespace {

using tokenizer::Tokenizer;

constexpr std::int64_t kDefaultNewTokens = 128;

void check_options(const ParsedOptions& options) {
  if (options.has("--ids") == options.has("--prompt")) {
    throw InputError(options.has("--ids") ? "generate: --ids and --prompt are both given; give one of them"
                                          : "generate: nothing to continue; give --prompt TEXT or --ids FILE.json");
  }
  for (const char* name : {"--temperature", "--top-k", "--top-p"}) {
    if (options.has("--greedy") && options.has(name)) {
      throw InputError(fmt::format("generate: --greedy takes the likeliest token, {} samples; give one of them", name));
    }
  }
}

// --ids is greedy unless told otherwise, --prompt as generation_config.json says; what the user gives wins.
generate::SamplingOptions sampling_of(const ParsedOptions& options, const model_io::GenerationConfig& config) {
  generate::SamplingOptions sampling;
  const bool told = options.has("--temperature") || options.has("--top-k") || options.has("--top-p");
  const bool suggested = options.has("--prompt") && config.do_sample.value_or(false);
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

// A GGUF file has none.
model_io::GenerationConfig generation_of(const ParsedOptions& options) {
  const std::filesystem::path path = options.path("--model");
  return checkpoint::is_gguf(path) ? model_io::GenerationConfig{} : model_io::read_generation_config(path);
}

std::vector<std::int32_t> eos_of(const ParsedOptions& options, const model_io::GenerationConfig& generation,
                                 const model_io::HfConfig& config) {
  std::vector<std::int32_t> result;
  if (options.has("--ignore-eos")) {
    return result;
  }
  for (const std::int64_t id : generation.eos_token_ids.empty() ? config.eos_token_ids : generation.eos_token_ids) {
    if (id >= 0 && id < config.model.vocab_size) {
      result.push_back(static_cast<std::int32_t>(id));
    }
  }
  return result;
}

bool has_tokenizer(const ParsedOptions& options) {
  std::error_code ignored;
  return std::filesystem::exists(options.path("--model") / "tokenizer.json", ignored);
}

// The tokenizer that the run needs: --prompt cannot do without; --ids with --json gives text where there is one.
std::optional<Tokenizer> tokenizer_of(const ParsedOptions& options, Streams streams) {
  if (options.has("--prompt")) {
    if (!has_tokenizer(options)) {
      throw InputError(fmt::format("{}: there is no tokenizer.json to read the prompt with; give token ids with --ids",
                                   options.text("--model")));
    }
    return Tokenizer::load(options.path("--model"));
  }
  if (!options.has("--json") || !has_tokenizer(options)) {
    return std::nullopt;
  }
  try {
    return Tokenizer::load(options.path("--model"));
  } catch (const UnsupportedError& error) {
    print_warnings(streams, {fmt::format("no text is given: {}", error.what())});
    return std::nullopt;
  }
}

model_io::IdLists prompts_of(const ParsedOptions& options, const std::optional<Tokenizer>& words) {
  if (options.has("--ids")) {
    return model_io::read_id_lists(options.path("--ids"));
  }
  model_io::IdLists prompts{words->encode(options.text("--prompt"))};
  if (prompts.front().empty()) {
    throw InputError("generate: the prompt is empty and the tokenizer puts no token before it; give some text");
  }
  return prompts;
}

// Where the user gives no number, a prompt near the model's length gets what room is left.
std::int64_t new_tokens_for(const ParsedOptions& options, const model_io::GenerationConfig& generation,
                            std::size_t prompt, const model::LlamaConfig& config) {
  if (options.has("--max-new-tokens")) {
    return options.integer("--max-new-tokens").value();
  }
  const std::int64_t room = nn::max_sequence_length(config.rope) - static_cast<std::int64_t>(prompt);
  const std::int64_t wanted = std::max<std::int64_t>(0, generation.max_new_tokens.value_or(kDefaultNewTokens));
  return std::clamp<std::int64_t>(room, 0, wanted);
}

// A model's vocabulary may be larger than its tokenizer's: those ids have no text.
bool has_text(const Tokenizer& words, std::int32_t id) {
  return id < words.vocab_size();
}

Json text_of(const std::optional<Tokenizer>& words, std::vector<std::int32_t> ids) {
  if (!words) {
    return nullptr;
  }
  std::erase_if(ids, [&](std::int32_t id) { return !has_text(*words, id); });
  return words->decode(ids, /*skip_special=*/true);
}

void print_json(Streams streams, std::size_t index, const generate::Request& request, const generate::Result& result,
                const std::optional<Tokenizer>& words) {
  Json json = Json::object();
  json["prompt_index"] = index;
  json["prompt_ids"] = request.prompt;
  json["ids"] = result.ids;
  json["text"] = text_of(words, result.ids);
  json["finish_reason"] = generate::to_string(result.reason);
  streams.out << json.dump() << "\n";
}

void stream_text(ops::Context& ctx, const model::Llama& model, const std::vector<generate::Request>& requests,
                 const Tokenizer& words, Streams streams) {
  tokenizer::StreamDecoder decoder(words);
  generate::generate(ctx, model, requests, [&](std::size_t, std::int32_t id) {
    if (has_text(words, id)) {
      streams.out << decoder.push(id) << std::flush;
    }
    return static_cast<bool>(streams.out);  // nobody reads any more
  });
  streams.out << decoder.finish() << "\n";
}

int run_generate(const ParsedOptions& options, Streams streams) {
  if (train::is_checkpoint(options.path("--model"))) {
    throw InputError(fmt::format("{}: is a checkpoint of a training; make a model of it with: caravan convert {} DIR",
                                 options.text("--model"), shell_word(options.text("--model"))));
  }
  check_options(options);
  const model_io::HfConfig config = model_io::read_model_config(options.path("--model"));
  const model_io::GenerationConfig generation = generation_of(options);
  const generate::SamplingOptions sampling = sampling_of(options, generation);
  const std::optional<Tokenizer> words = tokenizer_of(options, streams);
  const std::vector<std::int32_t> eos = eos_of(options, generation, config);
  std::vector<generate::Request> requests;
  for (std::vector<std::int32_t>& prompt : prompts_of(options, words)) {
    const std::int64_t new_tokens = new_tokens_for(options, generation, prompt.size(), config.model);
    requests.push_back({std::move(prompt), new_tokens, sampling, eos});
  }
  generate::check(requests, config.model);

  ops::Context ctx = context_for(options, /*dry_run=*/false);
  const model_io::LoadedModel model =
      model_io::load_model(ctx, options.path("--model"), dtype_of(options, "--dtype"), load_options(options));
  print_warnings(streams, generation.warnings);
  print_warnings(streams, model.warnings);
  if (options.has("--prompt") && !options.has("--json")) {
    stream_text(ctx, *model.llama, requests, *words, streams);
    return 0;
  }
  const std::vector<generate::Result> results = generate::generate(ctx, *model.llama, requests);
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (options.has("--json")) {
      print_json(streams, i, requests[i], results[i], words);
    } else {
      streams.out << Json(results[i].ids).dump() << "\n";
    }
  }
  return 0;
}

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

}  // namespace

Command generate_command() {
  CommandSpec spec;
  spec.name = "generate";
  spec.summary = "continue a text or lists of token ids";
  spec.description =
      "Continues a prompt with a KV cache until an end token, the number of new tokens, or the model's length. "
      "--prompt prints the text as it comes and samples as the model's generation_config.json says (do_sample; without "
      "it the likeliest token is taken). --ids prints a list of new ids a line and takes the likeliest token. "
      "--temperature, --top-k and --top-p turn sampling on.";
  spec.options = {
      model_option(),
      {.name = "--prompt", .value_name = "TEXT", .kind = OptionKind::kText, .help = "the text to continue"},
      {.name = "--ids",
       .value_name = "FILE.json",
       .kind = OptionKind::kFile,
       .help = "a list of lists of token ids to continue, as in [[1, 2, 3], [4, 5]]"},
      {.name = "--max-new-tokens",
       .value_name = "N",
       .kind = OptionKind::kInteger,
       .help = "how many tokens at most",
       .default_note = "generation_config.json's, else 128, or what room the model has left",
       .minimum = 0},
  };
  for (OptionSpec& option : sampling_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.options.push_back(
      {.name = "--ignore-eos", .value_name = "", .kind = OptionKind::kFlag, .help = "do not stop at an end token"});
  spec.options.push_back(
      {.name = "--json",
       .value_name = "",
       .kind = OptionKind::kFlag,
       .help = "print one JSON object a prompt: prompt_index, prompt_ids, ids, text, finish_reason"});
  spec.options.push_back(compute_dtype_option("auto"));
  for (OptionSpec& option : numerics_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.examples = {"caravan generate --model DIR --prompt \"Once upon a time\" --max-new-tokens 100 --temperature 0.8",
                   "caravan generate --model DIR --ids ids.json --max-new-tokens 32 --json"};
  return {spec, run_generate};
}

}  // namespace caravan::cli

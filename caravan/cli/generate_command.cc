#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/sampling_options.h"
#include "caravan/cli/shared_options.h"
#include "caravan/generate/generate.h"
#include "caravan/generate/stop_strings.h"
#include "caravan/model_io/generation_config.h"
#include "caravan/model_io/model_files.h"
#include "caravan/model_io/model_tokenizer.h"
#include "caravan/tokenizer/tokenizer.h"

namespace caravan::cli {

namespace {

using tokenizer::Tokenizer;

constexpr std::int64_t kDefaultNewTokens = 128;

constexpr std::int64_t kMaxPromptBytes = std::int64_t{64} << 20;

bool is_text(const ParsedOptions& options) {
  return options.has("--prompt") || options.has("--prompt-file");
}

void check_options(const ParsedOptions& options) {
  std::vector<std::string> given;
  for (const char* name : {"--prompt", "--prompt-file", "--ids"}) {
    if (options.has(name)) {
      given.emplace_back(name);
    }
  }
  if (given.empty()) {
    throw InputError("generate: nothing to continue; give --prompt TEXT, --prompt-file FILE or --ids FILE.json");
  }
  if (given.size() > 1) {
    throw InputError(fmt::format("generate: {} and {} are both given; give one of them", given[0], given[1]));
  }
}

std::string prompt_text(const ParsedOptions& options, Streams streams) {
  if (options.has("--prompt")) {
    return options.text("--prompt");
  }
  std::string text = text_of_input(options.text("--prompt-file"), streams, kMaxPromptBytes);
  if (text.ends_with('\n')) {
    text.pop_back();
  }
  return text;
}

// The tokenizer that the run needs: text cannot do without; --ids with --json gives text where there is one.
std::optional<Tokenizer> tokenizer_of(const ParsedOptions& options, Streams streams) {
  if (is_text(options) || options.has("--stop")) {
    std::optional<Tokenizer> found = model_io::find_tokenizer(options.path("--model"));
    if (!found) {
      throw InputError(
          fmt::format("{}: there is nothing to read text with, no tokenizer.json, no tokenizer.model and no "
                      "tokenizer in a GGUF file; give token ids with --ids",
                      options.text("--model")));
    }
    return found;
  }
  if (!options.has("--json")) {
    return std::nullopt;
  }
  try {
    return model_io::find_tokenizer(options.path("--model"));
  } catch (const UnsupportedError& error) {
    print_warnings(streams, {fmt::format("no text is given: {}", error.what())});
    return std::nullopt;
  }
}

model_io::IdLists prompts_of(const ParsedOptions& options, const std::optional<Tokenizer>& words, Streams streams) {
  if (options.has("--ids")) {
    return model_io::read_id_lists(options.path("--ids"));
  }
  model_io::IdLists prompts{words->encode(prompt_text(options, streams))};
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

// Without what stands behind the first stop string, or that itself.
Json text_of(const std::optional<Tokenizer>& words, std::vector<std::int32_t> ids,
             const std::vector<std::string>& stops) {
  if (!words) {
    return nullptr;
  }
  std::erase_if(ids, [&](std::int32_t id) { return !has_text(*words, id); });
  generate::StopStrings ends(stops);
  const std::string text = ends.push(words->decode(ids, /*skip_special=*/true));
  return text + ends.finish();
}

// The text of one request as its ids come.
struct Spoken {
  Spoken(const Tokenizer& tokenizer, const std::vector<std::string>& stops) : decoder(tokenizer), ends(stops) {}
  tokenizer::StreamDecoder decoder;
  generate::StopStrings ends;
};

void print_json(Streams streams, std::size_t index, const generate::Request& request, const generate::Result& result,
                const Json& text) {
  Json json = Json::object();
  json["prompt_index"] = index;
  json["prompt_ids"] = request.prompt;
  json["ids"] = result.ids;
  json["text"] = text;
  json["finish_reason"] = generate::to_string(result.reason);
  streams.out << json.dump() << "\n";
}

void stream_text(ops::Context& ctx, const model::Llama& model, const std::vector<generate::Request>& requests,
                 const Tokenizer& words, const std::vector<std::string>& stops, Streams streams) {
  Spoken spoken(words, stops);
  generate::generate(ctx, model, requests, [&](std::size_t, std::int32_t id) {
    if (has_text(words, id)) {
      streams.out << spoken.ends.push(spoken.decoder.push(id)) << std::flush;
    }
    return static_cast<bool>(streams.out) && !spoken.ends.stopped();  // or nobody reads any more
  });
  streams.out << spoken.ends.push(spoken.decoder.finish()) << spoken.ends.finish() << "\n";
}

// The same, with the text of each request looked through for stop strings.
std::vector<generate::Result> generate_quietly(ops::Context& ctx, const model::Llama& model,
                                               const std::vector<generate::Request>& requests,
                                               const std::optional<Tokenizer>& words,
                                               const std::vector<std::string>& stops) {
  if (stops.empty()) {
    return generate::generate(ctx, model, requests);
  }
  std::vector<Spoken> spoken;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    spoken.emplace_back(*words, stops);
  }
  return generate::generate(ctx, model, requests, [&](std::size_t index, std::int32_t id) {
    Spoken& one = spoken[index];
    if (has_text(*words, id)) {
      one.ends.push(one.decoder.push(id));
    }
    return !one.ends.stopped();
  });
}

int run_generate(const ParsedOptions& options, Streams streams) {
  check_options(options);
  const model_io::HfConfig config = model_io::read_model_config(options.path("--model"));
  const model_io::GenerationConfig generation = generation_of(options);
  // --ids is greedy unless told otherwise, --prompt as generation_config.json says; what the user gives wins.
  const generate::SamplingOptions sampling = sampling_of(options, generation, is_text(options));
  const std::vector<std::string> stops = options.values("--stop");
  generate::StopStrings{stops};  // refuses what cannot be one
  const std::optional<Tokenizer> words = tokenizer_of(options, streams);
  const std::vector<std::int32_t> eos =
      options.has("--ignore-eos") ? std::vector<std::int32_t>{} : eos_of(generation, config);
  std::vector<generate::Request> requests;
  for (std::vector<std::int32_t>& prompt : prompts_of(options, words, streams)) {
    const std::int64_t new_tokens = new_tokens_for(options, generation, prompt.size(), config.model);
    requests.push_back({std::move(prompt), new_tokens, sampling, eos});
  }
  generate::check(requests, config.model);

  ops::Context ctx = context_for(options, /*dry_run=*/false);
  const model_io::LoadedModel model =
      model_io::load_model(ctx, options.path("--model"), compute_dtype_of(options), load_options(options));
  print_warnings(streams, generation.warnings);
  print_warnings(streams, model.warnings);
  start_trace(options, ctx);
  if (is_text(options) && !options.has("--json")) {
    stream_text(ctx, *model.llama, requests, *words, stops, streams);
    finish_trace(ctx);
    return 0;
  }
  const std::vector<generate::Result> results = generate_quietly(ctx, *model.llama, requests, words, stops);
  finish_trace(ctx);
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (options.has("--json")) {
      print_json(streams, i, requests[i], results[i], text_of(words, results[i].ids, stops));
    } else {
      streams.out << Json(results[i].ids).dump() << "\n";
    }
  }
  return 0;
}

}  // namespace

Command generate_command() {
  CommandSpec spec;
  spec.name = "generate";
  spec.summary = "continue a text or lists of token ids";
  spec.description =
      "Continues a prompt with a KV cache until an end token, the number of new tokens, or the model's length. "
      "--prompt and --prompt-file print the text as it comes and sample as the model's generation_config.json says "
      "(do_sample; without it the likeliest token is taken). --ids prints a list of new ids a line and takes the "
      "likeliest token. "
      "--temperature, --top-k and --top-p turn sampling on.";
  spec.options = {
      model_option(),
      {.name = "--prompt", .value_name = "TEXT", .kind = OptionKind::kText, .help = "the text to continue"},
      {.name = "--prompt-file",
       .value_name = "FILE",
       .kind = OptionKind::kFile,
       .help = "the same out of a file, without a newline at its end; - is standard input"},
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
  spec.options.push_back({.name = "--stop",
                          .value_name = "TEXT",
                          .kind = OptionKind::kText,
                          .help = "end where this text comes, and leave it out of what is printed",
                          .repeatable = true});
  spec.options.push_back(
      {.name = "--ignore-eos", .value_name = "", .kind = OptionKind::kFlag, .help = "do not stop at an end token"});
  spec.options.push_back(
      {.name = "--json",
       .value_name = "",
       .kind = OptionKind::kFlag,
       .help = "print one JSON object a prompt: prompt_index, prompt_ids, ids, text, finish_reason"});
  spec.options.push_back(trace_option());
  spec.options.push_back(compute_dtype_option("auto"));
  for (OptionSpec& option : numerics_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.examples = {"caravan generate --model FILE.gguf --prompt \"The capital of France is\"",
                   "caravan generate --model DIR --prompt \"Once upon a time\" --max-new-tokens 100 --temperature 0.8",
                   "caravan generate --model DIR --ids ids.json --max-new-tokens 32 --json"};
  return {spec, run_generate};
}

}  // namespace caravan::cli

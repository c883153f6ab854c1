#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>
#include <set>
#include <string>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/gguf.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/shared_options.h"
#include "caravan/model_io/inspect.h"
#include "caravan/train/resume.h"

namespace caravan::cli {

namespace {

constexpr std::int64_t kPlannedTokens = 2048;

std::string rope_text(const nn::RopeConfig& rope) {
  std::string text = fmt::format("{}, theta {:g}", nn::to_string(rope.kind), rope.theta);
  if (rope.factor_given) {
    text += fmt::format(", factor {:g}", rope.factor);
  }
  if (rope.original_max_position_embeddings) {
    text += fmt::format(", trained on {}", *rope.original_max_position_embeddings);
  }
  return text;
}

std::string dtypes_text(const model_io::ModelSummary& summary) {
  std::vector<std::string> parts;
  for (const auto& [name, count] : summary.dtype_tensors) {
    parts.push_back(fmt::format("{} {}", count, name));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

// Peak bytes of a forward pass over one sequence, by a dry run.
MemoryUse planned_memory(const ParsedOptions& options, const std::filesystem::path& directory, DType dtype,
                         std::int64_t tokens) {
  ops::Context ctx = ops::make_context({.backend = ops::Backend::kCpu,
                                        .dry_run = true,
                                        .threads = static_cast<int>(options.integer("--threads").value_or(0)),
                                        .memory_capacity = std::int64_t{1} << 50});
  const model_io::LoadedModel model = model_io::load_model(ctx, directory, dtype);
  const model_io::IdLists ids = {std::vector<std::int32_t>(static_cast<std::size_t>(tokens), 0)};
  return model_io::dump(ctx, model, ids, {.logits = false, .hidden = false, .loss = true}, {}).memory;
}

struct Planned {
  const char* dtype;
  MemoryUse memory;
};

Json to_json(const model_io::ModelSummary& summary, const std::vector<Planned>& planned, std::int64_t tokens) {
  const model::LlamaConfig& model = summary.config.model;
  Json json = Json::object();
  json["architecture"] = "LlamaForCausalLM";
  json["format"] = to_string(summary.kind);
  json["parameters"] = summary.parameters;
  json["config"] = Json::parse(model_io::format_hf_config(summary.config, summary.config.dtype.value_or(DType::kF32)));
  json["max_sequence_length"] = model.rope.kind == nn::RopeKind::kDynamic ? Json(nullptr)  // stretches to any length
                                                                          : Json(nn::max_sequence_length(model.rope));
  json["files"] = summary.file_count;
  json["tensors"] = summary.tensor_count;
  json["tensor_types"] = summary.dtype_tensors;
  json["weight_bytes"] = summary.weight_bytes;
  json["problems"] = summary.problems;
  json["forward_memory"] = Json::object();
  json["forward_memory"]["tokens"] = tokens;
  for (const Planned& one : planned) {
    json["forward_memory"][one.dtype] = memory_json(one.memory);
  }
  return json;
}

void print_summary(Streams streams, const model_io::ModelSummary& summary, const std::vector<Planned>& planned,
                   std::int64_t tokens) {
  const model::LlamaConfig& model = summary.config.model;
  std::vector<std::string> extras;
  if (model.attention_bias) {
    extras.emplace_back("attention biases");
  }
  if (model.mlp_bias) {
    extras.emplace_back("feed-forward biases");
  }
  if (model.tie_word_embeddings) {
    extras.emplace_back("tied embeddings");
  }
  const auto line = [&](const char* label, const std::string& text) {
    streams.out << fmt::format("  {:<14}{}\n", label, text);
  };
  streams.out << fmt::format("LlamaForCausalLM, {} parameters\n", human_count(summary.parameters));
  line("vocabulary", fmt::format("{}", model.vocab_size));
  line("layers", fmt::format("{} of hidden size {}, intermediate size {}", model.num_hidden_layers, model.hidden_size,
                             model.intermediate_size));
  line("heads", fmt::format("{} with {} for keys and values, head_dim {}", model.num_attention_heads,
                            model.num_key_value_heads, model.head_dim));
  line("length", fmt::format("{} positions", model.rope.max_position_embeddings));
  line("rope", rope_text(model.rope));
  line("norm", fmt::format("RMS, eps {:g}", model.rms_norm_eps));
  if (!extras.empty()) {
    line("has", fmt::format("{}", fmt::join(extras, ", ")));
  }
  line("weights",
       fmt::format("{} in {} tensors ({}) of {} file{}", human_bytes(summary.weight_bytes), summary.tensor_count,
                   dtypes_text(summary), summary.file_count, summary.file_count == 1 ? "" : "s"));
  for (const Planned& one : planned) {
    line("memory", fmt::format("{} for a forward pass over {} tokens in {}", human_bytes(one.memory.high_water), tokens,
                               one.dtype));
  }
}

int inspect_file(const ParsedOptions& options, Streams streams, const std::filesystem::path& path) {
  const checkpoint::SafetensorsFile file = checkpoint::SafetensorsFile::open(path);
  const auto& entries = file.header().entries;
  if (options.has("--json")) {
    Json json = Json::object();
    json["metadata"] = file.header().metadata;
    json["tensors"] = Json::array();
    for (const checkpoint::TensorEntry& one : entries) {
      json["tensors"].push_back(
          {{"name", one.name}, {"type", one.dtype_name}, {"shape", one.shape}, {"bytes", one.bytes()}});
    }
    streams.out << json.dump() << "\n";
    return 0;
  }
  std::size_t width = 0;
  std::int64_t total = 0;
  for (const checkpoint::TensorEntry& one : entries) {
    width = std::max(width, one.name.size());
    total += one.bytes();
  }
  for (const auto& [key, value] : file.header().metadata) {
    streams.out << fmt::format("{}: {}\n", key, value.substr(0, 200));
  }
  for (const checkpoint::TensorEntry& one : entries) {
    streams.out << fmt::format("{:<{}}  {:<8}[{}]\n", one.name, width, one.dtype_name, fmt::join(one.shape, ", "));
  }
  streams.out << fmt::format("{} tensors, {}\n", entries.size(), human_bytes(total));
  return 0;
}

// A metadata value for people: texts and arrays cut short.
std::string value_text(const checkpoint::GgufMetadata& metadata, const std::string& key) {
  constexpr std::size_t kShown = 60;
  const checkpoint::GgufValue& value = *metadata.find(key);
  if (value.type == checkpoint::GgufType::kText) {
    return fmt::format("\"{}\"", printable(metadata.text(key).value(), kShown));
  }
  if (value.type == checkpoint::GgufType::kArray) {
    return fmt::format("{} of {}", grouped(value.count), to_string(value.element));
  }
  if (value.type == checkpoint::GgufType::kBool) {
    return metadata.boolean(key).value() ? "true" : "false";
  }
  return fmt::format("{}", metadata.number(key).value());
}

Json gguf_json(const checkpoint::GgufHeader& header) {
  Json json = Json::object();
  json["version"] = header.version;
  json["alignment"] = header.alignment;
  json["metadata"] = Json::object();
  for (const std::string& key : header.metadata.keys()) {
    json["metadata"][printable(key)] = value_text(header.metadata, key);
  }
  json["tensors"] = Json::array();
  for (const checkpoint::GgufTensor& one : header.tensors) {
    json["tensors"].push_back({{"name", printable(one.name)},
                               {"type", one.type->name},
                               {"shape", one.shape},
                               {"begin", one.begin},
                               {"bytes", one.bytes}});
  }
  return json;
}

// What is in the file, whether or not it is a model that Caravan runs.
void print_gguf(Streams streams, const checkpoint::GgufHeader& header) {
  std::size_t width = 0;
  for (const std::string& key : header.metadata.keys()) {
    width = std::max(width, key.size());
  }
  for (const checkpoint::GgufTensor& one : header.tensors) {
    width = std::max(width, one.name.size());
  }
  for (const std::string& key : header.metadata.keys()) {
    streams.out << fmt::format("{:<{}}  {}\n", printable(key), width, value_text(header.metadata, key));
  }
  for (const checkpoint::GgufTensor& one : header.tensors) {
    streams.out << fmt::format("{:<{}}  {:<8}[{}]\n", printable(one.name), width, one.type->name,
                               fmt::join(one.shape, ", "));
  }
}

int inspect_model(const ParsedOptions& options, Streams streams, const std::filesystem::path& path, Json json);
int inspect_checkpoint(const ParsedOptions& options, Streams streams, const std::filesystem::path& path);

int inspect_gguf(const ParsedOptions& options, Streams streams, const std::filesystem::path& path) {
  const checkpoint::GgufFile file = checkpoint::GgufFile::open(path);
  if (!options.has("--json")) {
    print_gguf(streams, file.header());
  }
  return inspect_model(options, streams, path, options.has("--json") ? gguf_json(file.header()) : Json());
}

int run_inspect(const ParsedOptions& options, Streams streams) {
  const std::filesystem::path path = options.path("PATH");
  std::error_code ignored;
  if (checkpoint::is_gguf(path)) {
    return inspect_gguf(options, streams, path);
  }
  if (std::filesystem::is_regular_file(path, ignored)) {
    return inspect_file(options, streams, path);
  }
  if (train::is_checkpoint(path)) {
    return inspect_checkpoint(options, streams, path);
  }
  return inspect_model(options, streams, path, Json());
}

// A training's checkpoint: where the training stood, and its model.  Tensors are not read.
int inspect_checkpoint(const ParsedOptions& options, Streams streams, const std::filesystem::path& path) {
  const checkpoint::CheckpointReader reader = checkpoint::CheckpointReader::open(path);
  const std::string source = (path / "manifest.json").string();
  const train::TrainState state = train::parse_train_state(reader.state(), source);
  model_io::ModelSummary summary;
  summary.kind = model_io::SourceKind::kCheckpoint;
  summary.config = model_io::parse_hf_config(state.model, source + " (\"model\")");
  summary.parameters = parameter_count(model::parameter_specs(summary.config.model));
  std::set<std::string> files;
  for (const auto& [name, tensor] : reader.manifest().tensors) {
    if (name.starts_with("optimizer.")) {
      continue;
    }
    std::int64_t bytes = size_of(tensor.dtype);
    for (const std::int64_t extent : tensor.shape) {
      bytes *= extent;
    }
    for (const checkpoint::Piece& piece : tensor.pieces) {
      files.insert(piece.file);
    }
    ++summary.tensor_count;
    ++summary.dtype_tensors[checkpoint::safetensors_name(tensor.dtype)];
    summary.weight_bytes += bytes;
  }
  summary.file_count = static_cast<std::int64_t>(files.size());
  const bool optimizer = train::holds_optimizer(reader);
  if (options.has("--json")) {
    Json json = to_json(summary, {}, 0);
    json.erase("forward_memory");
    json["training"] = {{"step", state.step}, {"n_tokens_seen", state.n_tokens_seen}, {"optimizer", optimizer}};
    streams.out << json.dump() << "\n";
    return 0;
  }
  streams.out << fmt::format("checkpoint of a training: step {}, {} tokens seen, {}\n", state.step,
                             grouped(state.n_tokens_seen),
                             optimizer ? "weights and optimizer" : "weights alone, which cannot be trained on");
  print_summary(streams, summary, {}, 0);
  streams.out << fmt::format("a model of it: caravan convert {} DIR\n", shell_word(path.string()));
  return 0;
}

// `file` stands beside the model's own entries where it is not null.
int inspect_model(const ParsedOptions& options, Streams streams, const std::filesystem::path& path, Json file) {
  const model_io::ModelSummary summary = model_io::inspect_model(path);
  print_warnings(streams, summary.config.warnings);
  const std::int64_t tokens = std::min(kPlannedTokens, nn::max_sequence_length(summary.config.model.rope));
  std::vector<Planned> planned;
  if (summary.problems.empty()) {
    planned = {{"f32", planned_memory(options, path, DType::kF32, tokens)},
               {"bf16", planned_memory(options, path, DType::kBF16, tokens)}};
  }
  if (options.has("--json")) {
    Json json = to_json(summary, planned, tokens);
    if (!file.is_null()) {
      json["file"] = std::move(file);
    }
    streams.out << json.dump() << "\n";
  } else {
    print_summary(streams, summary, planned, tokens);
  }
  if (!summary.problems.empty()) {
    throw FormatError(
        fmt::format("{}: weights and configuration disagree: {}", path.string(), fmt::join(summary.problems, "; ")));
  }
  return 0;
}

}  // namespace

Command inspect_command() {
  CommandSpec spec;
  spec.name = "inspect";
  spec.summary = "describe a model directory, a GGUF file, a safetensors file or a checkpoint";
  spec.description =
      "Of a Hugging Face directory: architecture, sizes, tensor types, whether the weights are those that config.json "
      "asks for, and the memory of a forward pass. Of a GGUF file: its metadata and tensors, then the same. Of a "
      "safetensors file: its tensors. Of a training's checkpoint: where the training stood, and its model. No weight "
      "is "
      "read.";
  spec.options = {{.name = "PATH",
                   .value_name = "",
                   .kind = OptionKind::kFile,
                   .help = "a model directory, a GGUF file, a safetensors file or a training's checkpoint",
                   .required = true,
                   .positional = true},
                  json_option()};
  spec.examples = {"caravan inspect DIR", "caravan inspect model.gguf", "caravan inspect DIR/model.safetensors --json",
                   "caravan inspect my_run/checkpoint/step-200"};
  return {spec, run_inspect};
}

}  // namespace caravan::cli

#include "caravan/model_io/hf_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "caravan/base/directory.h"
#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/base/text.h"
#include "caravan/model_io/json_fields.h"

namespace caravan::model_io {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMaxConfigBytes = std::int64_t{16} << 20;

void check_architecture(const Fields& fields) {
  const std::optional<std::string> type = fields.text("model_type");
  const Json* architectures = fields.find("architectures");
  if (!type && architectures == nullptr) {
    throw ConfigError(
        fmt::format("{}: neither \"model_type\" nor \"architectures\" says what model this is; "
                    "a Llama has \"model_type\": \"llama\"",
                    fields.where()));
  }
  if (architectures != nullptr) {
    if (!architectures->is_array() || architectures->empty() || !architectures->front().is_string()) {
      fields.wrong_type("architectures", "a list with a name in it", *architectures);
    }
    const std::string name = architectures->front().get<std::string>();
    // NVLlamaForCausalLM is the same function over TransformerEngine's names.
    if (name != "LlamaForCausalLM" && name != "LLaMAForCausalLM" && name != "NVLlamaForCausalLM") {
      throw UnsupportedError(
          fmt::format("{}: architecture \"{}\" is not supported; Caravan runs LlamaForCausalLM", fields.where(), name));
    }
  }
  if (type && *type != "llama") {
    throw UnsupportedError(
        fmt::format("{}: model_type \"{}\" is not supported; Caravan runs \"llama\"", fields.where(), *type));
  }
  if (fields.find("quantization_config") != nullptr) {
    throw UnsupportedError(
        fmt::format("{}: the weights are quantised (\"quantization_config\"), which is not "
                    "supported; use the original float weights",
                    fields.where()));
  }
  const std::string activation = fields.text("hidden_act").value_or("silu");
  if (activation != "silu" && activation != "swish") {
    throw UnsupportedError(
        fmt::format("{}: hidden_act \"{}\" is not supported; a Llama has \"silu\"", fields.where(), activation));
  }
}

void read_rope_fields(const Fields& fields, nn::RopeConfig& rope) {
  if (const auto factor = fields.number("factor")) {
    rope.factor = *factor;
    rope.factor_given = true;
  }
  rope.attention_factor = fields.number("attention_factor");
  rope.mscale = fields.number("mscale");
  rope.mscale_all_dim = fields.number("mscale_all_dim");
  // transformers takes a zero for an absent value here.
  const auto or_default = [](std::optional<double> value, double absent) {
    return value.value_or(0.0) == 0.0 ? absent : *value;
  };
  rope.beta_fast = or_default(fields.number("beta_fast"), rope.beta_fast);
  rope.beta_slow = or_default(fields.number("beta_slow"), rope.beta_slow);
  rope.truncate = fields.boolean("truncate").value_or(true);
  rope.short_factor = fields.numbers("short_factor");
  rope.long_factor = fields.numbers("long_factor");
  rope.low_freq_factor = fields.number("low_freq_factor").value_or(rope.low_freq_factor);
  rope.high_freq_factor = fields.number("high_freq_factor").value_or(rope.high_freq_factor);
}

// Fields without which a kind means nothing; the ones transformers demands too.
void require_rope_fields(const Fields& fields, nn::RopeKind kind) {
  std::vector<std::string> needed;
  switch (kind) {
    case nn::RopeKind::kLinear:
    case nn::RopeKind::kDynamic:
      needed = {"factor"};
      break;
    case nn::RopeKind::kLlama3:
      needed = {"factor", "low_freq_factor", "high_freq_factor"};
      break;
    case nn::RopeKind::kLongRope:
      needed = {"short_factor", "long_factor"};
      break;
    case nn::RopeKind::kDefault:
    case nn::RopeKind::kYarn:
      break;
  }
  std::erase_if(needed, [&](const std::string& name) { return fields.find(name) != nullptr; });
  if (!needed.empty()) {
    throw ConfigError(
        fmt::format("{}: rope type \"{}\" lacks {}", fields.where(), nn::to_string(kind), fmt::join(needed, ", ")));
  }
}

nn::RopeConfig read_rope(const Fields& fields, std::vector<std::string>& warnings) {
  nn::RopeConfig rope;
  rope.max_position_embeddings = fields.integer("max_position_embeddings").value_or(rope.max_position_embeddings);
  rope.theta = fields.number("rope_theta").value_or(rope.theta);
  double partial = fields.number("partial_rotary_factor").value_or(1.0);

  // transformers lets a non-empty rope_scaling win over rope_parameters.
  const Json* object = fields.find("rope_scaling");
  std::string name = "rope_scaling";
  if (object == nullptr || (object->is_object() && object->empty())) {
    object = fields.find("rope_parameters");
    name = "rope_parameters";
  }
  if (object != nullptr) {
    const Fields inner(*object, fmt::format("{}: {}", fields.where(), name));
    if (name == "rope_scaling" && fields.find("rope_parameters") != nullptr) {
      warnings.push_back(
          fmt::format("{}: both rope_scaling and rope_parameters are there; the former is used, as "
                      "transformers does",
                      fields.where()));
    }
    if (inner.text("rope_type") && inner.text("type") && *inner.text("rope_type") != *inner.text("type")) {
      warnings.push_back(fmt::format("{}: rope_type \"{}\" and type \"{}\" contradict each other; the former is used",
                                     inner.where(), *inner.text("rope_type"), *inner.text("type")));
    }
    const std::string type = inner.text("rope_type").value_or(inner.text("type").value_or("default"));
    const std::optional<nn::RopeKind> kind = nn::parse_rope_kind(type);
    if (!kind) {
      throw UnsupportedError(fmt::format(
          "{}: rope type \"{}\" is not supported; Caravan knows default, linear, dynamic, yarn, longrope and llama3",
          inner.where(), type));
    }
    for (const auto& [key, value] : object->items()) {
      if (value.is_object()) {
        throw UnsupportedError(fmt::format(
            "{}: parameters of their own for \"{}\" layers are not supported; a Llama has one rotary embedding",
            inner.where(), key));
      }
    }
    rope.kind = *kind;
    rope.theta = inner.number("rope_theta").value_or(rope.theta);
    partial = inner.number("partial_rotary_factor").value_or(partial);
    rope.original_max_position_embeddings = inner.integer("original_max_position_embeddings");
    require_rope_fields(inner, *kind);
    read_rope_fields(inner, rope);
  }
  // A length at the top of the file wins over the one inside, as in transformers.
  if (const auto original = fields.integer("original_max_position_embeddings")) {
    rope.original_max_position_embeddings = original;
  }
  if (partial != 1.0) {
    throw UnsupportedError(fmt::format("{}: partial_rotary_factor {} is not supported; a Llama turns whole heads",
                                       fields.where(), partial));
  }
  return rope;
}

void read_sizes(const Fields& fields, model::LlamaConfig& config) {
  struct Size {
    const char* name;
    std::int64_t* target;
  };
  std::vector<std::string> missing;
  for (const Size& size :
       {Size{"vocab_size", &config.vocab_size}, Size{"hidden_size", &config.hidden_size},
        Size{"intermediate_size", &config.intermediate_size}, Size{"num_hidden_layers", &config.num_hidden_layers},
        Size{"num_attention_heads", &config.num_attention_heads}}) {
    const std::optional<std::int64_t> value = fields.integer(size.name);
    if (!value) {
      missing.emplace_back(size.name);
    }
    *size.target = value.value_or(0);
  }
  if (!missing.empty()) {
    throw ConfigError(fmt::format("{}: missing {}", fields.where(), fmt::join(missing, ", ")));
  }
  config.num_key_value_heads = fields.integer("num_key_value_heads").value_or(config.num_attention_heads);
  if (const auto head_dim = fields.integer("head_dim")) {
    config.head_dim = *head_dim;
  } else if (config.num_attention_heads < 1 || config.hidden_size % config.num_attention_heads != 0) {
    throw ConfigError(
        fmt::format("{}: hidden_size ({}) must be a multiple of num_attention_heads ({}) when there is "
                    "no head_dim",
                    fields.where(), config.hidden_size, config.num_attention_heads));
  } else {
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
}

void read_token_ids(const Fields& fields, HfConfig& config) {
  // transformers' LlamaConfig has ids 1 and 2 unless the file says otherwise; null says that there is none.
  config.bos_token_id = fields.has_key("bos_token_id") ? fields.integer("bos_token_id") : 1;
  if (!fields.has_key("eos_token_id")) {
    config.eos_token_ids = {2};
  }
  config.pad_token_id = fields.integer("pad_token_id");
  // torch's Embedding counts a negative padding_idx from the end of the table.
  const std::int64_t vocab_size = config.model.vocab_size;
  const std::int64_t pad = config.pad_token_id.value_or(-vocab_size - 1);
  config.model.pad_token_id = pad < -vocab_size || pad >= vocab_size ? -1 : (pad + vocab_size) % vocab_size;
  if (fields.find("eos_token_id") != nullptr) {
    config.eos_token_ids = fields.integers("eos_token_id");
  }
}

struct DTypeName {
  const char* name;
  DType dtype;
};
constexpr DTypeName kDTypeNames[] = {
    {"float32", DType::kF32}, {"bfloat16", DType::kBF16}, {"float16", DType::kF16}, {"float64", DType::kF64}};

void read_dtype(const Fields& fields, HfConfig& config) {
  const std::optional<std::string> name =
      fields.find("dtype") != nullptr ? fields.text("dtype") : fields.text("torch_dtype");
  if (!name) {
    return;
  }
  for (const DTypeName& one : kDTypeNames) {
    if (*name == one.name || *name == std::string("torch.") + one.name) {
      config.dtype = one.dtype;
      return;
    }
  }
  config.warnings.push_back(fmt::format("{}: dtype \"{}\" is unknown and ignored", fields.where(), *name));
}

void note_ignored(const Fields& fields, HfConfig& config) {
  if (fields.integer("pretraining_tp").value_or(1) > 1) {
    config.warnings.push_back(fmt::format(
        "{}: pretraining_tp is ignored: it changes the order of sums and not the function", fields.where()));
  }
  if (fields.number("attention_dropout").value_or(0.0) != 0.0) {
    config.warnings.push_back(fmt::format("{}: attention_dropout is ignored", fields.where()));
  }
}

Json rope_object(const nn::RopeConfig& rope) {
  Json object = Json::object();
  object["rope_type"] = nn::to_string(rope.kind);
  if (rope.kind == nn::RopeKind::kDefault) {
    return object;
  }
  if (rope.factor_given) {
    object["factor"] = rope.factor;
  }
  if (rope.original_max_position_embeddings) {
    object["original_max_position_embeddings"] = *rope.original_max_position_embeddings;
  }
  const auto put = [&](const char* name, std::optional<double> value) {
    if (value) {
      object[name] = *value;
    }
  };
  put("attention_factor", rope.attention_factor);
  if (rope.kind == nn::RopeKind::kYarn) {
    put("mscale", rope.mscale);
    put("mscale_all_dim", rope.mscale_all_dim);
    object["beta_fast"] = rope.beta_fast;
    object["beta_slow"] = rope.beta_slow;
    object["truncate"] = rope.truncate;
  }
  if (rope.kind == nn::RopeKind::kLongRope) {
    object["short_factor"] = rope.short_factor;
    object["long_factor"] = rope.long_factor;
  }
  if (rope.kind == nn::RopeKind::kLlama3) {
    object["low_freq_factor"] = rope.low_freq_factor;
    object["high_freq_factor"] = rope.high_freq_factor;
  }
  return object;
}

Json eos_json(const HfConfig& config) {
  if (config.eos_token_ids.empty()) {
    return nullptr;
  }
  return config.eos_token_ids.size() == 1 ? Json(config.eos_token_ids.front()) : Json(config.eos_token_ids);
}

Json optional_json(const std::optional<std::int64_t>& value) {
  return value ? Json(*value) : Json(nullptr);
}

const char* hf_dtype_name(DType dtype) {
  for (const DTypeName& one : kDTypeNames) {
    if (one.dtype == dtype) {
      return one.name;
    }
  }
  throw ShapeError(fmt::format("config.json: {} is no dtype of a model's weights", to_string(dtype)));
}

}  // namespace

HfConfig parse_hf_config(std::string_view text, const std::string& source) {
  const Json document = parse_json(text, source);
  const Fields fields(document, source);
  check_architecture(fields);

  HfConfig config;
  read_sizes(fields, config.model);
  config.model.rope = read_rope(fields, config.warnings);
  config.model.rms_norm_eps = fields.number("rms_norm_eps").value_or(config.model.rms_norm_eps);
  config.model.attention_bias = fields.boolean("attention_bias").value_or(false);
  config.model.mlp_bias = fields.boolean("mlp_bias").value_or(false);
  config.model.tie_word_embeddings = fields.boolean("tie_word_embeddings").value_or(false);
  config.model.initializer_range = fields.number("initializer_range").value_or(config.model.initializer_range);
  read_token_ids(fields, config);
  read_dtype(fields, config);
  note_ignored(fields, config);
  try {
    model::validate(config.model);
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("{}: {}", source, error.what()));
  }
  return config;
}

namespace {

// What somebody may have meant who named a directory without config.json: what is beside a model where it was trained.
std::string instead_of(const fs::path& directory) {
  std::error_code ignored;
  const auto convert = [](const fs::path& checkpoint) {
    return fmt::format("make a model of it with: caravan convert {} DIR", shell_word(checkpoint.string()));
  };
  if (fs::is_regular_file(directory / "manifest.json", ignored)) {
    return "it is a checkpoint of a training; " + convert(directory);
  }
  if (fs::is_regular_file(directory / "model" / "config.json", ignored)) {
    return fmt::format("the model is in {}", (directory / "model").string());
  }
  for (const fs::path& folder : {directory, directory / "checkpoint"}) {
    for (const std::string& name : fs::is_directory(folder, ignored) ? names_in(folder) : std::vector<std::string>()) {
      if (fs::is_regular_file(folder / name / "COMPLETE", ignored)) {
        return fmt::format("there are checkpoints of a training, as {}; {}", (folder / name).string(),
                           convert(folder / name));
      }
    }
  }
  return "a Hugging Face model directory has one";
}

[[noreturn]] void refuse_what_is_no_directory(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    throw FileError(
        fmt::format("{}: there is no such file or directory; a model is a directory with config.json and safetensors "
                    "files, or a GGUF file",
                    path.string()));
  }
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  throw FileError(fmt::format(
      "{}: is neither a directory nor a GGUF file; a model is a directory with config.json and "
      "safetensors files{}",
      path.string(),
      fs::is_regular_file(parent / "config.json", ignored) ? fmt::format(": name {}", parent.string()) : ""));
}

}  // namespace

HfConfig read_hf_config(const fs::path& directory) {
  std::error_code failure;
  if (!fs::is_directory(directory, failure)) {
    refuse_what_is_no_directory(directory);
  }
  const fs::path path = directory / "config.json";
  if (!fs::is_regular_file(path, failure)) {
    const bool missing = !fs::exists(path, failure);
    throw FileError(fmt::format("{}: {}; {}", directory.string(),
                                missing ? "there is no config.json" : "config.json is no plain file",
                                instead_of(directory)));
  }
  return parse_hf_config(read_text_file(path, kMaxConfigBytes), path.string());
}

std::string format_hf_config(const HfConfig& config, DType dtype, RopeDialect dialect) {
  const model::LlamaConfig& model = config.model;
  const bool old_dialect = dialect == RopeDialect::kRopeScaling;
  Json json = Json::object();
  json["architectures"] = {"LlamaForCausalLM"};
  json["attention_bias"] = model.attention_bias;
  json["attention_dropout"] = 0.0;
  json["bos_token_id"] = optional_json(config.bos_token_id);
  json[old_dialect ? "torch_dtype" : "dtype"] = hf_dtype_name(dtype);
  json["eos_token_id"] = eos_json(config);
  json["head_dim"] = model.head_dim;
  json["hidden_act"] = "silu";
  json["hidden_size"] = model.hidden_size;
  json["initializer_range"] = model.initializer_range;
  json["intermediate_size"] = model.intermediate_size;
  json["max_position_embeddings"] = model.rope.max_position_embeddings;
  json["mlp_bias"] = model.mlp_bias;
  json["model_type"] = "llama";
  json["num_attention_heads"] = model.num_attention_heads;
  json["num_hidden_layers"] = model.num_hidden_layers;
  json["num_key_value_heads"] = model.num_key_value_heads;
  json["pad_token_id"] = optional_json(config.pad_token_id);
  json["rms_norm_eps"] = model.rms_norm_eps;
  if (old_dialect) {
    json["rope_scaling"] = model.rope.kind == nn::RopeKind::kDefault ? Json(nullptr) : rope_object(model.rope);
    json["rope_theta"] = model.rope.theta;
  } else {
    json["rope_parameters"] = rope_object(model.rope);
    json["rope_parameters"]["rope_theta"] = model.rope.theta;
  }
  json["tie_word_embeddings"] = model.tie_word_embeddings;
  json["use_cache"] = true;
  json["vocab_size"] = model.vocab_size;
  return json.dump(2) + "\n";
}

std::string format_generation_config(const HfConfig& config) {
  Json json = Json::object();
  json["_from_model_config"] = true;
  const auto put = [&](const char* name, const Json& value) {
    if (!value.is_null()) {
      json[name] = value;
    }
  };
  put("bos_token_id", optional_json(config.bos_token_id));
  put("eos_token_id", eos_json(config));
  put("pad_token_id", optional_json(config.pad_token_id));
  return json.dump(2) + "\n";
}

}  // namespace caravan::model_io

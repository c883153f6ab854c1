#include "caravan/model_io/gguf_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <optional>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/quant/dequantize.h"

namespace caravan::model_io {

namespace {

using checkpoint::GgufEntry;
using checkpoint::GgufFile;
using checkpoint::GgufMetadata;
using checkpoint::GgufTensor;

constexpr const char* kConfigKey = "caravan.config";
constexpr std::int64_t kMaxConfigBytes = std::int64_t{1} << 20;

// Divisors agree with a rule when their frequencies do to a few roundings of f32.
constexpr double kSameFrequency = 2e-6;

// The keys of one file.
struct Keys {
  const GgufFile& file;
  const GgufMetadata& metadata;
  std::vector<std::string> missing;

  std::string source() const { return file.path().string(); }

  // One number, or the same for every layer.
  std::optional<std::int64_t> integer(const std::string& name) const {
    const std::string key = "llama." + name;
    const auto values = metadata.integers(key);
    if (!values || values->empty()) {
      return std::nullopt;
    }
    if (std::ranges::any_of(*values, [&](std::int64_t one) { return one != values->front(); })) {
      throw UnsupportedError(
          fmt::format("{}: \"{}\" differs from layer to layer, which is not supported", source(), key));
    }
    return values->front();
  }
  std::int64_t required(const std::string& name) {
    const auto value = integer(name);
    if (!value) {
      missing.push_back("llama." + name);
    }
    return value.value_or(0);
  }
  std::optional<double> number(const std::string& name) const { return metadata.number("llama." + name); }
};

void check_architecture(const Keys& keys) {
  const auto architecture = keys.metadata.text("general.architecture");
  if (!architecture) {
    throw ConfigError(fmt::format("{}: the key \"general.architecture\" is missing", keys.source()));
  }
  if (*architecture != "llama") {
    throw UnsupportedError(fmt::format("{}: architecture \"{}\" is not supported; Caravan runs \"llama\"",
                                       keys.source(), printable(*architecture, 60)));
  }
  if (keys.metadata.integer("split.count").value_or(1) > 1) {
    throw UnsupportedError(fmt::format("{}: is one of {} pieces of a model; join them first (llama-gguf-split --merge)",
                                       keys.source(), *keys.metadata.integer("split.count")));
  }
  if (keys.integer("expert_count").value_or(0) > 0) {
    throw UnsupportedError(
        fmt::format("{}: mixtures of experts (llama.expert_count) are not supported", keys.source()));
  }
  for (const char* name : {"logit_scale", "embedding_scale", "residual_scale", "attention.scale"}) {
    if (const auto scale = keys.number(name); scale && *scale != 0.0 && *scale != 1.0) {
      throw UnsupportedError(fmt::format("{}: \"llama.{}\" is not supported; a Llama has none", keys.source(), name));
    }
  }
}

std::int64_t tensor_rows(const Keys& keys, const char* name) {
  const GgufTensor* tensor = keys.file.find(name);
  if (tensor == nullptr) {
    throw FormatError(fmt::format("{}: the tensor \"{}\" is missing", keys.source(), name));
  }
  return tensor->rows();
}

void read_sizes(Keys& keys, model::LlamaConfig& config) {
  config.num_hidden_layers = keys.required("block_count");
  config.hidden_size = keys.required("embedding_length");
  config.intermediate_size = keys.required("feed_forward_length");
  config.num_attention_heads = keys.required("attention.head_count");
  config.rope.max_position_embeddings = keys.required("context_length");
  const auto eps = keys.number("attention.layer_norm_rms_epsilon");
  if (!eps) {
    keys.missing.emplace_back("llama.attention.layer_norm_rms_epsilon");
  }
  if (!keys.missing.empty()) {
    throw ConfigError(fmt::format("{}: missing {}", keys.source(), fmt::join(keys.missing, ", ")));
  }
  config.rms_norm_eps = *eps;
  config.num_key_value_heads = keys.integer("attention.head_count_kv").value_or(config.num_attention_heads);
  const auto key_length = keys.integer("attention.key_length");
  if (!key_length && (config.num_attention_heads < 1 || config.hidden_size % config.num_attention_heads != 0)) {
    throw ConfigError(
        fmt::format("{}: embedding_length ({}) must be a multiple of attention.head_count ({}) when there "
                    "is no attention.key_length",
                    keys.source(), config.hidden_size, config.num_attention_heads));
  }
  config.head_dim = key_length ? *key_length : config.hidden_size / config.num_attention_heads;
  const std::int64_t value_length = keys.integer("attention.value_length").value_or(config.head_dim);
  const std::int64_t rotated = keys.integer("rope.dimension_count").value_or(config.head_dim);
  if (value_length != config.head_dim || rotated != config.head_dim) {
    throw UnsupportedError(
        fmt::format("{}: heads of {} key and {} value elements, {} of them rotated, are not "
                    "supported; a Llama's are all the same",
                    keys.source(), config.head_dim, value_length, rotated));
  }
  config.vocab_size = tensor_rows(keys, "token_embd.weight");
  config.tie_word_embeddings = keys.file.find("output.weight") == nullptr;
  config.attention_bias = keys.file.find("blk.0.attn_q.bias") != nullptr;
  config.mlp_bias = keys.file.find("blk.0.ffn_down.bias") != nullptr;
}

// The values of a small tensor that must have one for each pair of a head.
std::vector<double> divisors(const Keys& keys, const GgufTensor& tensor, std::int64_t head_dim) {
  const std::int64_t wanted = head_dim / 2;
  if (tensor.rows() * tensor.columns() != wanted) {
    throw FormatError(fmt::format("{}: tensor \"{}\" has {} elements; heads of {} need {}", keys.source(), tensor.name,
                                  tensor.rows() * tensor.columns(), head_dim, wanted));
  }
  const quant::BlockMatrix blocks = keys.file.blocks(tensor);
  std::vector<float> values(static_cast<std::size_t>(wanted));
  quant::dequantize_rows(blocks, 0, blocks.rows, values.data(), 1);
  for (const float one : values) {
    if (!std::isfinite(one) || !(one > 0.0F)) {
      throw FormatError(fmt::format("{}: tensor \"{}\" holds {}; divisors of frequencies are above 0", keys.source(),
                                    tensor.name, one));
    }
  }
  return {values.begin(), values.end()};
}

bool gives_divisors(const nn::RopeConfig& rope, std::int64_t head_dim, const std::vector<double>& wanted) {
  nn::RopeConfig plain;
  plain.theta = rope.theta;
  plain.max_position_embeddings = rope.max_position_embeddings;
  try {
    nn::validate(rope, head_dim);
  } catch (const ConfigError&) {
    return false;
  }
  const std::vector<float> base = nn::rope_frequencies(plain, head_dim, 1);
  const std::vector<float> scaled = nn::rope_frequencies(rope, head_dim, 1);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double frequency = base[i] / wanted[i];
    if (!(std::abs(scaled[i] - frequency) <= kSameFrequency * std::abs(frequency))) {
      return false;
    }
  }
  return true;
}

nn::RopeConfig llama3(const nn::RopeConfig& base, double factor, double high, double original) {
  nn::RopeConfig rope = base;
  rope.kind = nn::RopeKind::kLlama3;
  rope.factor = factor;
  rope.factor_given = true;
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = high;
  rope.original_max_position_embeddings = static_cast<std::int64_t>(original);
  return rope;
}

// Between the two wavelengths 1 / divisor = (1 - s) / factor + s with s = (M0 / wavelength - low) / (high - low): a
// straight line in 1 / wavelength.  Its slope and where it meets zero give M0 / low and high / low.
std::optional<nn::RopeConfig> fitted_llama3(const nn::RopeConfig& base, std::int64_t head_dim,
                                            const std::vector<double>& divisors) {
  const double factor = *std::ranges::max_element(divisors);
  nn::RopeConfig plain;
  plain.theta = base.theta;
  const std::vector<float> frequencies = nn::rope_frequencies(plain, head_dim, 1);
  double n = 0.0;
  double sx = 0.0;
  double sy = 0.0;
  double sxx = 0.0;
  double sxy = 0.0;
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    if (divisors[i] > 1.0 + 1e-6 && divisors[i] < factor * (1.0 - 1e-6)) {
      const double x = frequencies[i] / (2.0 * std::numbers::pi);
      const double y = (1.0 / divisors[i] - 1.0 / factor) / (1.0 - 1.0 / factor);
      n += 1.0;
      sx += x;
      sy += y;
      sxx += x * x;
      sxy += x * y;
    }
  }
  const double spread = n * sxx - sx * sx;
  if (!(n >= 2.0) || !(spread > 0.0)) {
    return std::nullopt;
  }
  const double slope = (n * sxy - sx * sy) / spread;
  const double zero = (sy - slope * sx) / n;  // -low / (high - low)
  if (!(slope > 0.0) || !(zero < 0.0)) {
    return std::nullopt;
  }
  // Numbers that people write down: whole ones, when they are near.
  const auto snapped = [](double value) {
    const double whole = std::round(value);
    return std::abs(whole - value) < 1e-3 * whole ? whole : value;
  };
  const double original = std::round(-slope / zero);
  constexpr double kLongest = 1e12;
  if (!(original >= 1.0) || !(original <= kLongest)) {
    return std::nullopt;
  }
  return llama3(base, snapped(factor), snapped(1.0 - 1.0 / zero), original);
}

void read_llama3(const Keys& keys, const GgufTensor& tensor, const HfConfig* own, HfConfig& config) {
  nn::RopeConfig& rope = config.model.rope;
  const std::vector<double> found = divisors(keys, tensor, config.model.head_dim);
  const double factor = *std::ranges::max_element(found);
  if (gives_divisors(rope, config.model.head_dim, found)) {
    return;  // all of them 1
  }
  // The released models' own numbers first: few divisors may lie between the wavelengths.
  constexpr double kReleasedHigh = 4.0;
  constexpr double kReleasedLength = 8192.0;
  std::vector<nn::RopeConfig> candidates = {llama3(rope, factor, kReleasedHigh, kReleasedLength)};
  if (own != nullptr && own->model.rope.theta == rope.theta) {
    candidates.insert(candidates.begin(), own->model.rope);
  }
  if (const auto fitted = fitted_llama3(rope, config.model.head_dim, found)) {
    candidates.push_back(*fitted);
  }
  for (const nn::RopeConfig& candidate : candidates) {
    if (gives_divisors(candidate, config.model.head_dim, found)) {
      rope = candidate;
      return;
    }
  }
  config.warnings.push_back(
      fmt::format("{}: the frequencies of \"{}\" follow none of Llama 3.1's rules; they are kept as longrope factors",
                  keys.source(), tensor.name));
  rope.kind = nn::RopeKind::kLongRope;
  rope.short_factor = found;
  rope.long_factor = found;
  rope.attention_factor = 1.0;
  rope.original_max_position_embeddings = rope.max_position_embeddings;
}

// llama.cpp multiplies cos and sin by attn_factor and, for yarn, by 0.1 ln(factor) + 1.
double yarn_magnitude(double factor) {
  return factor > 1.0 ? 0.1 * std::log(factor) + 1.0 : 1.0;
}

void read_rope(const Keys& keys, const HfConfig* own, HfConfig& config) {
  nn::RopeConfig& rope = config.model.rope;
  rope.theta = keys.number("rope.freq_base").value_or(rope.theta);
  const std::string type = keys.metadata.text("llama.rope.scaling.type").value_or("linear");
  // scale_linear is the key's name before 2024.
  double factor = keys.number("rope.scaling.factor").value_or(0.0);
  factor = factor == 0.0 ? keys.number("rope.scale_linear").value_or(0.0) : factor;
  const auto attn_factor = keys.number("rope.scaling.attn_factor");
  const auto original = keys.integer("rope.scaling.original_context_length");
  if (const GgufTensor* tensor = keys.file.find("rope_freqs.weight")) {
    read_llama3(keys, *tensor, own, config);
  } else if (type == "longrope") {
    const GgufTensor* shorter = keys.file.find("rope_factors_short.weight");
    const GgufTensor* longer = keys.file.find("rope_factors_long.weight");
    if (shorter == nullptr || longer == nullptr) {
      throw FormatError(fmt::format(
          "{}: rope scaling is longrope but rope_factors_short.weight or rope_factors_long.weight is missing",
          keys.source()));
    }
    rope.kind = nn::RopeKind::kLongRope;
    rope.short_factor = divisors(keys, *shorter, config.model.head_dim);
    rope.long_factor = divisors(keys, *longer, config.model.head_dim);
    rope.attention_factor = attn_factor.value_or(1.0);
    rope.original_max_position_embeddings = original;
  } else if (type == "yarn") {
    rope.kind = nn::RopeKind::kYarn;
    rope.factor = factor == 0.0 ? 1.0 : factor;
    rope.factor_given = true;
    rope.original_max_position_embeddings = original;
    rope.beta_fast = keys.number("rope.scaling.yarn_beta_fast").value_or(rope.beta_fast);
    rope.beta_slow = keys.number("rope.scaling.yarn_beta_slow").value_or(rope.beta_slow);
    if (attn_factor && *attn_factor != 1.0) {
      rope.attention_factor = *attn_factor * yarn_magnitude(rope.factor);
    }
  } else if (type == "linear" && factor != 0.0 && factor != 1.0) {
    rope.kind = nn::RopeKind::kLinear;
    rope.factor = factor;
    rope.factor_given = true;
  } else if (type != "linear" && type != "none") {
    throw UnsupportedError(fmt::format("{}: rope scaling \"{}\" is not supported; none, linear, yarn and longrope are",
                                       keys.source(), printable(type, 60)));
  }
}

void read_token_ids(const Keys& keys, HfConfig& config) {
  const auto id = [&](const char* name) -> std::optional<std::int64_t> {
    const auto found = keys.metadata.integer(fmt::format("tokenizer.ggml.{}_token_id", name));
    // 2^32 - 1 is how some writers say that there is none.
    return found && *found >= 0 && *found < config.model.vocab_size ? found : std::nullopt;
  };
  config.bos_token_id = id("bos");
  config.pad_token_id = id("padding");
  config.model.pad_token_id = config.pad_token_id.value_or(-1);
  for (const char* name : {"eos", "eot"}) {
    if (const auto found = id(name); found && std::ranges::count(config.eos_token_ids, *found) == 0) {
      config.eos_token_ids.push_back(*found);
    }
  }
}

// The type of the matrices, where it is one and plain.
std::optional<DType> matrix_dtype(const GgufFile& file) {
  std::optional<DType> result;
  for (const GgufTensor& tensor : file.header().tensors) {
    if (tensor.shape.size() < 2) {
      continue;
    }
    const auto dtype =
        tensor.type->readable ? quant::plain_dtype(static_cast<quant::BlockType>(tensor.type->number)) : std::nullopt;
    if (!dtype || (result && *result != *dtype)) {
      return std::nullopt;
    }
    result = dtype;
  }
  return result;
}

// config.json as Caravan wrote it, if this file has it.
std::optional<HfConfig> own_config(const Keys& keys) {
  const auto text = keys.metadata.text(kConfigKey);
  if (!text || static_cast<std::int64_t>(text->size()) > kMaxConfigBytes) {
    return std::nullopt;
  }
  return parse_hf_config(*text, fmt::format("{}: {}", keys.source(), kConfigKey));
}

// Takes over what it says beyond the keys, when the two do not contradict each other.
void merge_own_config(const Keys& keys, const HfConfig& own, HfConfig& config) {
  const model::LlamaConfig& a = config.model;
  const model::LlamaConfig& b = own.model;
  const auto float_of = [](double value) { return static_cast<float>(value); };
  const bool same_sizes = a.vocab_size == b.vocab_size && a.hidden_size == b.hidden_size &&
                          a.intermediate_size == b.intermediate_size && a.num_hidden_layers == b.num_hidden_layers &&
                          a.num_attention_heads == b.num_attention_heads &&
                          a.num_key_value_heads == b.num_key_value_heads && a.head_dim == b.head_dim &&
                          a.attention_bias == b.attention_bias && a.mlp_bias == b.mlp_bias &&
                          a.tie_word_embeddings == b.tie_word_embeddings;
  const bool same_numbers = float_of(a.rms_norm_eps) == float_of(b.rms_norm_eps) &&
                            float_of(a.rope.theta) == float_of(b.rope.theta) &&
                            a.rope.max_position_embeddings == b.rope.max_position_embeddings;
  // dynamic scaling and what config.json says of yarn beyond llama.cpp's keys have no keys of their own.
  const bool same_rope = a.rope.kind == b.rope.kind || b.rope.kind == nn::RopeKind::kDynamic;
  if (!same_sizes || !same_numbers || !same_rope) {
    config.warnings.push_back(fmt::format(
        "{}: \"{}\" contradicts the other keys, which count; somebody has changed them", keys.source(), kConfigKey));
    return;
  }
  std::vector<std::string> warnings = std::move(config.warnings);
  config = own;
  warnings.insert(warnings.end(), own.warnings.begin(), own.warnings.end());
  config.warnings = std::move(warnings);
}

void add_rope(const HfConfig& config, GgufConfig& out) {
  const nn::RopeConfig& rope = config.model.rope;
  const std::int64_t head_dim = config.model.head_dim;
  const auto add = [&](const char* name, const checkpoint::GgufWriteValue& value) {
    out.metadata.push_back({fmt::format("llama.rope.scaling.{}", name), value});
  };
  const auto add_original = [&] {
    add("original_context_length",
        static_cast<std::uint32_t>(rope.original_max_position_embeddings.value_or(rope.max_position_embeddings)));
  };
  const auto floats = [](const std::vector<double>& values) {
    return std::vector<float>(values.begin(), values.end());
  };
  switch (rope.kind) {
    case nn::RopeKind::kDefault:
      return;
    case nn::RopeKind::kLinear:
      add("type", std::string("linear"));
      add("factor", static_cast<float>(rope.factor));
      return;
    case nn::RopeKind::kDynamic:
      out.notes.push_back(
          fmt::format("dynamic rope scaling has no key in GGUF: llama.cpp runs the model unscaled, right "
                      "for up to {} tokens",
                      rope.max_position_embeddings));
      return;
    case nn::RopeKind::kYarn: {
      const std::int64_t original = rope.original_max_position_embeddings.value_or(rope.max_position_embeddings);
      const double factor = rope.factor_given
                                ? rope.factor
                                : static_cast<double>(rope.max_position_embeddings) / static_cast<double>(original);
      add("type", std::string("yarn"));
      add("factor", static_cast<float>(factor));
      add_original();
      add("yarn_beta_fast", static_cast<float>(rope.beta_fast));
      add("yarn_beta_slow", static_cast<float>(rope.beta_slow));
      const double magnitude = nn::rope_attention_scaling(rope) / yarn_magnitude(factor);
      if (std::abs(magnitude - 1.0) > 1e-6) {
        add("attn_factor", static_cast<float>(magnitude));
      }
      if (rope.beta_fast != 32.0 || rope.beta_slow != 1.0) {
        out.notes.emplace_back(
            "yarn's beta_fast and beta_slow are written, but llama.cpp takes 32 and 1 for this architecture");
      }
      if (!rope.truncate) {
        out.notes.emplace_back("yarn with truncate false has no key in GGUF: llama.cpp rounds the ends of the ramp");
      }
      return;
    }
    case nn::RopeKind::kLongRope:
      add("type", std::string("longrope"));
      add_original();
      add("attn_factor", static_cast<float>(nn::rope_attention_scaling(rope)));
      out.tensors.push_back({"rope_factors_long.weight", floats(rope.long_factor)});
      out.tensors.push_back({"rope_factors_short.weight", floats(rope.short_factor)});
      return;
    case nn::RopeKind::kLlama3: {
      nn::RopeConfig plain;
      plain.theta = rope.theta;
      const std::vector<float> base = nn::rope_frequencies(plain, head_dim, 1);
      const std::vector<float> scaled = nn::rope_frequencies(rope, head_dim, 1);
      std::vector<float> divisor;
      for (std::size_t i = 0; i < base.size(); ++i) {
        divisor.push_back(base[i] / scaled[i]);
      }
      out.tensors.push_back({"rope_freqs.weight", divisor});
      return;
    }
  }
}

}  // namespace

HfConfig read_gguf_config(const GgufFile& file) {
  Keys keys{file, file.metadata(), {}};
  HfConfig config;
  check_architecture(keys);
  read_sizes(keys, config.model);
  const std::optional<HfConfig> own = own_config(keys);
  try {
    model::validate(config.model);  // sizes before anything is made of them
    read_rope(keys, own ? &*own : nullptr, config);
    model::validate(config.model);
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("{}: {}", file.path().string(), error.what()));
  }
  read_token_ids(keys, config);
  config.dtype = matrix_dtype(file);
  if (own) {
    merge_own_config(keys, *own, config);
  }
  return config;
}

GgufConfig format_gguf_config(const HfConfig& config, DType dtype, std::uint32_t file_type, const std::string& name) {
  const model::LlamaConfig& model = config.model;
  GgufConfig out;
  const auto add = [&](const std::string& key, const checkpoint::GgufWriteValue& value) {
    out.metadata.push_back({key, value});
  };
  const auto whole = [](std::int64_t value) {
    return static_cast<std::uint32_t>(std::min<std::int64_t>(value, std::numeric_limits<std::uint32_t>::max()));
  };
  add("general.architecture", std::string("llama"));
  add("general.type", std::string("model"));
  add("general.name", name);
  add("general.file_type", file_type);
  add("general.quantization_version", std::uint32_t{2});
  add("llama.block_count", whole(model.num_hidden_layers));
  add("llama.context_length", whole(model.rope.max_position_embeddings));
  add("llama.embedding_length", whole(model.hidden_size));
  add("llama.feed_forward_length", whole(model.intermediate_size));
  add("llama.attention.head_count", whole(model.num_attention_heads));
  add("llama.attention.head_count_kv", whole(model.num_key_value_heads));
  add("llama.attention.layer_norm_rms_epsilon", static_cast<float>(model.rms_norm_eps));
  add("llama.attention.key_length", whole(model.head_dim));
  add("llama.attention.value_length", whole(model.head_dim));
  add("llama.rope.dimension_count", whole(model.head_dim));
  add("llama.rope.freq_base", static_cast<float>(model.rope.theta));
  add("llama.vocab_size", whole(model.vocab_size));
  add_rope(config, out);
  add(kConfigKey, format_hf_config(config, dtype));
  return out;
}

}  // namespace caravan::model_io

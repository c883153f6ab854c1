#include "caravan/train/setup.h"

#include <fmt/format.h>

#include <charconv>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/base/threads.h"
#include "caravan/model/presets.h"

namespace caravan::train {

namespace {

// Llama 2's ratio of the feed-forward's width to the model's, 8/3, in whole cache lines.
std::int64_t default_intermediate(std::int64_t hidden) {
  constexpr std::int64_t kMultiple = 32;
  return (hidden * 8 / 3 + kMultiple - 1) / kMultiple * kMultiple;
}

// A vocabulary in whole blocks makes products with whole tiles.
std::int64_t padded_vocabulary(std::int64_t ids) {
  constexpr std::int64_t kMultiple = 64;
  return (ids + kMultiple - 1) / kMultiple * kMultiple;
}

template <typename T>
void set_or_refuse(T& value, const std::optional<T>& asked, const char* key, bool fixed) {
  if (!asked || *asked == value) {
    return;
  }
  if (fixed) {
    throw ConfigError(fmt::format(
        "model.{}: {} asked for, but the model that training starts from has {}; remove the key", key, *asked, value));
  }
  value = *asked;
}

std::int64_t required(const std::optional<std::int64_t>& value, const char* key) {
  if (!value) {
    throw ConfigError(
        fmt::format("model.{} is missing: give it, or a known architecture by model.flavor (`caravan presets` lists "
                    "them), or start "
                    "from a model with checkpoint.initial_load_path",
                    key));
  }
  return *value;
}

model::LlamaConfig from_sizes(const Config& config, const tokenizer::Tokenizer* tokenizer) {
  const ModelSection& asked = config.model;
  model::LlamaConfig result;
  result.hidden_size = required(asked.hidden_size, "hidden_size");
  result.num_hidden_layers = required(asked.num_hidden_layers, "num_hidden_layers");
  result.num_attention_heads = required(asked.num_attention_heads, "num_attention_heads");
  if (!asked.vocab_size && tokenizer == nullptr) {
    throw ConfigError(
        "model.vocab_size is missing, and there is no tokenizer that tells it: give it, or name the tokenizer by "
        "model.hf_assets_path");
  }
  result.vocab_size = asked.vocab_size ? *asked.vocab_size : padded_vocabulary(tokenizer->vocab_size());
  result.num_key_value_heads = asked.num_key_value_heads.value_or(result.num_attention_heads);
  result.intermediate_size = asked.intermediate_size.value_or(default_intermediate(result.hidden_size));
  result.head_dim = asked.head_dim.value_or(result.hidden_size / std::max<std::int64_t>(1, result.num_attention_heads));
  result.rms_norm_eps = asked.rms_norm_eps.value_or(1e-5);
  result.rope.theta = asked.rope_theta.value_or(10000.0);
  result.rope.max_position_embeddings = asked.max_position_embeddings.value_or(config.training.seq_len);
  result.tie_word_embeddings = asked.tie_word_embeddings.value_or(false);
  result.initializer_range = asked.initializer_range.value_or(0.02);
  return result;
}

void apply_sizes(model::LlamaConfig& result, const ModelSection& asked, bool fixed) {
  set_or_refuse(result.vocab_size, asked.vocab_size, "vocab_size", fixed);
  if (asked.hidden_size && !asked.head_dim && !fixed) {
    result.head_dim = *asked.hidden_size / asked.num_attention_heads.value_or(result.num_attention_heads);
  }
  set_or_refuse(result.hidden_size, asked.hidden_size, "hidden_size", fixed);
  set_or_refuse(result.intermediate_size, asked.intermediate_size, "intermediate_size", fixed);
  set_or_refuse(result.num_hidden_layers, asked.num_hidden_layers, "num_hidden_layers", fixed);
  set_or_refuse(result.num_attention_heads, asked.num_attention_heads, "num_attention_heads", fixed);
  set_or_refuse(result.num_key_value_heads, asked.num_key_value_heads, "num_key_value_heads", fixed);
  set_or_refuse(result.head_dim, asked.head_dim, "head_dim", fixed);
  set_or_refuse(result.rms_norm_eps, asked.rms_norm_eps, "rms_norm_eps", fixed);
  set_or_refuse(result.rope.theta, asked.rope_theta, "rope_theta", fixed);
  set_or_refuse(result.rope.max_position_embeddings, asked.max_position_embeddings, "max_position_embeddings", fixed);
  set_or_refuse(result.tie_word_embeddings, asked.tie_word_embeddings, "tie_word_embeddings", fixed);
  set_or_refuse(result.initializer_range, asked.initializer_range, "initializer_range", fixed);
}

optim::Decay decay_of(const std::string& name) {
  return name == "sqrt" ? optim::Decay::kSqrt : name == "cosine" ? optim::Decay::kCosine : optim::Decay::kLinear;
}

autograd::SavePolicy policy_of(const ActivationCheckpointSection& section) {
  autograd::SavePolicy policy;
  if (section.mode == "full") {
    policy.mode = autograd::CheckpointMode::kFull;
  } else if (section.mode == "selective" && section.selective_ac_option == "op") {
    policy.mode = autograd::CheckpointMode::kSelective;
  } else if (section.mode == "selective") {
    policy.mode = autograd::CheckpointMode::kEveryNth;
    const std::string& number = section.selective_ac_option;
    std::from_chars(number.data(), number.data() + number.size(), policy.every);
  }
  return policy;
}

}  // namespace

ops::ContextOptions context_options(const Config& config) {
  const Device device = parse_device(config.training.device);
  ops::ContextOptions options;
  options.backend = device.kind == DeviceKind::kCuda   ? ops::Backend::kCuda
                    : config.training.backend == "ref" ? ops::Backend::kRef
                                                       : ops::Backend::kCpu;
  options.threads = static_cast<int>(config.training.threads);
  options.cuda_device = device.index;
  options.deterministic = config.debug.deterministic;
  return options;
}

std::optional<std::int64_t> available_memory(const Config& config) {
  const Device device = parse_device(config.training.device);
  if (device.kind != DeviceKind::kCuda) {
    return usable_memory();
  }
  try {
    return Allocator::cuda_capacity(device.index);
  } catch (const UnsupportedError&) {
    return std::nullopt;
  }
}

DType compute_dtype(const Config& config, const ops::Context& ctx) {
  if (config.training.dtype == "float64") {
    return DType::kF64;
  }
  const std::string& asked = config.training.mixed_precision_param;
  if (asked == "auto") {
    return ctx.backend == ops::Backend::kCuda || ctx.isa >= Isa::kAvx512Bf16 ? DType::kBF16 : DType::kF32;
  }
  return asked == "bfloat16" ? DType::kBF16 : asked == "float16" ? DType::kF16 : DType::kF32;
}

model_io::HfConfig architecture(const Config& config, const std::optional<model_io::HfConfig>& start,
                                const tokenizer::Tokenizer* tokenizer) {
  model_io::HfConfig result;
  if (start) {
    result = *start;
    apply_sizes(result.model, config.model, /*fixed=*/true);
  } else if (!config.model.flavor.empty()) {
    result.model = model::preset(config.model.flavor);
    apply_sizes(result.model, config.model, /*fixed=*/false);
  } else {
    result.model = from_sizes(config, tokenizer);
  }
  model::validate(result.model);
  if (!start && result.model.hidden_size % result.model.num_attention_heads != 0) {
    throw ConfigError(
        fmt::format("model.hidden_size {} is no multiple of num_attention_heads {}: transformers would not load the "
                    "result; choose sizes that divide",
                    result.model.hidden_size, result.model.num_attention_heads));
  }
  if (tokenizer != nullptr) {
    if (tokenizer->vocab_size() > result.model.vocab_size) {
      throw ConfigError(
          fmt::format("the tokenizer has {} ids and the model a vocabulary of {}; raise model.vocab_size or "
                      "choose the model's own tokenizer",
                      grouped(tokenizer->vocab_size()), grouped(result.model.vocab_size)));
    }
    if (!start) {
      result.bos_token_id = tokenizer->bos();
      if (tokenizer->eos()) {
        result.eos_token_ids = {*tokenizer->eos()};
      }
    }
  }
  return result;
}

std::int64_t micro_batches(const Config& config, int ranks) {
  const std::int64_t one = config.training.local_batch_size * ranks;
  const std::int64_t all = config.training.global_batch_size;
  if (all < 0) {
    return 1;
  }
  if (all == 0 || all % one != 0) {
    throw ConfigError(fmt::format("training.global_batch_size {} is no multiple of local_batch_size {} times {} rank{}",
                                  all, config.training.local_batch_size, ranks, ranks == 1 ? "" : "s"));
  }
  return all / one;
}

std::int64_t total_steps(const Config& config, std::int64_t total_rows, int ranks) {
  if (config.training.epochs == 0) {
    return config.training.steps.value_or(kDefaultSteps);
  }
  const std::int64_t rows = micro_batches(config, ranks) * config.training.local_batch_size * ranks;
  return (total_rows + rows - 1) / rows;
}

TrainerOptions trainer_options(const Config& config, std::int64_t steps) {
  TrainerOptions options;
  options.optimizer = {
      config.optimizer.lr,
      config.optimizer.beta1,
      config.optimizer.beta2,
      config.optimizer.eps,
      config.optimizer.weight_decay,
      config.optimizer.decay_scope == "matrices" ? optim::DecayScope::kMatrices : optim::DecayScope::kAll};
  options.schedule.total_steps = config.lr_scheduler.total_steps.value_or(steps);
  options.schedule.warmup_steps = config.lr_scheduler.warmup_steps;
  options.schedule.decay_ratio = config.lr_scheduler.decay_ratio;
  options.schedule.decay = decay_of(config.lr_scheduler.decay_type);
  options.schedule.min_factor = config.lr_scheduler.min_lr_factor;
  options.max_norm = config.training.max_norm;
  options.checkpointing = policy_of(config.activation_checkpoint);
  options.loss_scaler = {.scale = static_cast<double>(config.training.loss_scale),
                         .growth_interval = config.training.loss_scale_interval};
  options.skip_non_finite = config.training.on_nan == "skip";
  return options;
}

data::RowOptions row_options(const Config& config) {
  data::RowOptions options;
  options.seq_len = config.training.seq_len;
  options.packing = config.training.packing == "whole" ? data::Packing::kWhole : data::Packing::kSplit;
  options.shuffle = config.training.shuffle;
  options.seed = static_cast<std::uint64_t>(config.debug.seed);
  options.epochs = config.training.epochs;
  options.weights = config.training.dataset_weights;
  return options;
}

}  // namespace caravan::train

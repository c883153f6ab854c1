// What a training run is told: torchtitan's sections and key names wherever the meaning is the same.
//
// The members are the defaults.  The table of keys (config_keys.h) holds each key's help text and limits; parser,
// `--help`, `--print-config` and docs/config.md are made from it.  Keys that differ from torchtitan in name, default or
// meaning are marked in the table, and docs/config.md lists them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace caravan::train {

struct JobSection {
  std::string dump_folder = "./outputs";
  std::string description = "";

  bool operator==(const JobSection&) const = default;
};

// An unset number comes from `flavor`, from the model that training starts from, or from LlamaConfig.
struct ModelSection {
  std::string flavor = "";                 // a preset's name
  std::string hf_assets_path = "";         // a tokenizer's file or the directory that holds it
  std::optional<std::int64_t> vocab_size;  // unset without flavor and start model: the tokenizer's, rounded up to 64
  std::optional<std::int64_t> hidden_size;
  std::optional<std::int64_t> intermediate_size;  // unset: 8/3 hidden_size rounded up to a multiple of 32
  std::optional<std::int64_t> num_hidden_layers;
  std::optional<std::int64_t> num_attention_heads;
  std::optional<std::int64_t> num_key_value_heads;      // unset: num_attention_heads
  std::optional<std::int64_t> head_dim;                 // unset: hidden_size / num_attention_heads
  std::optional<std::int64_t> max_position_embeddings;  // unset: training.seq_len
  std::optional<double> rms_norm_eps;
  std::optional<double> rope_theta;
  std::optional<bool> tie_word_embeddings;
  std::optional<double> initializer_range;

  bool operator==(const ModelSection&) const = default;
};

struct OptimizerSection {
  std::string name = "AdamW";
  double lr = 8e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  std::string decay_scope = "all";  // all | matrices

  bool operator==(const OptimizerSection&) const = default;
};

struct LrSchedulerSection {
  std::int64_t warmup_steps = 200;
  std::optional<std::int64_t> total_steps;  // unset: the run's steps
  std::optional<double> decay_ratio;
  std::string decay_type = "linear";  // linear | sqrt | cosine
  double min_lr_factor = 0.0;

  bool operator==(const LrSchedulerSection&) const = default;
};

inline constexpr std::int64_t kDefaultSteps = 10000;  // torchtitan's

struct TrainingSection {
  std::vector<std::string> dataset_path;
  std::vector<double> dataset_weights;
  std::string dataset_cache = "";  // unset: dump_folder/data
  std::int64_t local_batch_size = 8;
  std::int64_t global_batch_size = -1;  // rows of one step over all ranks; -1: local_batch_size * ranks
  std::int64_t seq_len = 2048;
  std::optional<std::int64_t> steps;  // unset: what epochs come to, and without epochs kDefaultSteps
  std::int64_t epochs = 0;            // 0: steps decide
  double max_norm = 1.0;              // 0: no clipping
  std::string packing = "split";      // split | whole
  bool shuffle = true;
  std::string dtype = "float32";
  std::string mixed_precision_param = "auto";  // auto | bfloat16 | float16 | float32
  std::int64_t loss_scale = 65536;             // of float16: the first one
  std::int64_t loss_scale_interval = 2000;     // steps until it is doubled
  std::string on_nan = "stop";                 // stop | skip
  std::int64_t prefetch_steps = 2;
  std::int64_t threads = 0;  // 0: all usable cores
  bool pin_threads = false;
  std::string backend = "cpu";  // cpu | ref (with dtype float64)
  std::string device = "cpu";   // cpu | cuda | cuda:N

  bool operator==(const TrainingSection&) const = default;
};

struct ParallelismSection {
  std::int64_t data_parallel_replicate_degree = 1;
  std::int64_t data_parallel_shard_degree = -1;
  std::int64_t tensor_parallel_degree = 1;
  std::int64_t pipeline_parallel_degree = 1;
  std::int64_t context_parallel_degree = 1;

  bool operator==(const ParallelismSection&) const = default;
};

struct CheckpointSection {
  bool enable = true;
  std::string folder = "checkpoint";
  std::int64_t interval = 500;
  std::string initial_load_path = "";
  bool initial_load_model_only = true;
  bool initial_load_in_hf = false;
  bool last_save_model_only = false;
  bool last_save_in_hf = true;
  std::string hf_folder = "model";       // below dump_folder
  std::string export_dtype = "float32";  // float32 | bfloat16 | float16
  std::string async_mode = "async";      // disabled | async
  std::int64_t keep_latest_k = 10;
  std::int64_t load_step = -1;
  std::vector<std::string> exclude_from_loading;  // optimizer, lr_scheduler, dataloader, train_state
  bool enable_first_step_checkpoint = false;
  bool load_only = false;
  std::string on_save_failure = "stop";  // stop | pause | continue
  double pause_seconds = 10.0;           // between two attempts of a paused run

  bool operator==(const CheckpointSection&) const = default;
};

struct ActivationCheckpointSection {
  std::string mode = "none";               // none | full | selective
  std::string selective_ac_option = "op";  // op | a number n: every n-th layer

  bool operator==(const ActivationCheckpointSection&) const = default;
};

struct MetricsSection {
  std::int64_t log_freq = 10;
  bool enable_tensorboard = true;
  std::string save_tb_folder = "tb";
  bool disable_color_printing = false;

  bool operator==(const MetricsSection&) const = default;
};

struct ValidationSection {
  bool enable = false;
  std::vector<std::string> dataset_path;
  double fraction = 0.0;  // without a path: this share at the end of the training documents is held out
  std::int64_t local_batch_size = 8;
  std::int64_t seq_len = 0;  // 0: training.seq_len
  std::int64_t freq = 10;
  std::int64_t steps = -1;  // micro-batches at most; -1: all

  bool operator==(const ValidationSection&) const = default;
};

struct SamplingSection {
  std::vector<std::string> prompts;
  std::int64_t freq = 0;  // every so many steps; 0: never
  std::int64_t max_new_tokens = 64;
  double temperature = 0.8;
  std::int64_t top_k = 50;
  double top_p = 1.0;

  bool operator==(const SamplingSection&) const = default;
};

struct DebugSection {
  std::int64_t seed = 42;
  bool deterministic = true;

  bool operator==(const DebugSection&) const = default;
};

struct Config {
  JobSection job;
  ModelSection model;
  OptimizerSection optimizer;
  LrSchedulerSection lr_scheduler;
  TrainingSection training;
  ParallelismSection parallelism;
  CheckpointSection checkpoint;
  ActivationCheckpointSection activation_checkpoint;
  MetricsSection metrics;
  ValidationSection validation;
  SamplingSection sampling;
  DebugSection debug;

  bool operator==(const Config&) const = default;
};

}  // namespace caravan::train

#include "caravan/train/config_table.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace caravan::train {

namespace {

template <auto kSection, auto kMember>
Slot at(Config& config) {
  return &((config.*kSection).*kMember);
}

constexpr double kMostIds = 2147483647.0;       // ids and positions are 32-bit
constexpr double kLongestRow = 16777216.0;      // 2^24 positions: far beyond what memory holds
constexpr double kWidest = 1048576.0;           // 2^20
constexpr double kMostSteps = 1000000000000.0;  // 10^12
const Limits kFromZero = {.low = 0.0};
const Limits kAboveZero = {.low = 0.0, .above_low = true};
const Limits kShare = {.low = 0.0, .high = 1.0};
const Limits kBelowOne = {.low = 0.0, .high = 1.0, .below_high = true};
const Limits kWidth = {.low = 1.0, .high = kWidest};
const Limits kSteps = {.low = 1.0, .high = kMostSteps};
const Limits kStepsOrZero = {.low = 0.0, .high = kMostSteps};
const Limits kDegree = {.low = 1.0, .high = kWidest};
const char* const kOurs = "Caravan's own";
const char* const kOurModel = "Caravan's own; torchtitan keeps sizes in its flavors";
const char* const kMorePaths = "a list of paths; the kind of data is recognised from the files";

std::vector<Row> job_rows() {
  using S = JobSection;
  constexpr auto s = &Config::job;
  return {
      {.name = "job.dump_folder",
       .slot = at<s, &S::dump_folder>,
       .help = "folder for all that the run writes",
       .plain_name = "output_dir"},
      {.name = "job.description",
       .slot = at<s, &S::description>,
       .help = "a note to yourself, printed at the start",
       .differs = "empty instead of \"default job\""},
  };
}

std::vector<Row> model_rows() {
  using S = ModelSection;
  constexpr auto s = &Config::model;
  const Limits count = {.low = 1.0, .high = kMostIds};
  return {
      {.name = "model.flavor",
       .slot = at<s, &S::flavor>,
       .help = "a known architecture by name (`caravan presets` lists them); the keys below change it",
       .differs = "unset instead of \"debugmodel\", and the names are those of `caravan presets`"},
      {.name = "model.hf_assets_path",
       .slot = at<s, &S::hf_assets_path>,
       .help = "tokenizer.json or tokenizer.model, or the folder that holds it",
       .differs = "unset instead of torchtitan's test tokenizer; may be a file"},
      {.name = "model.vocab_size",
       .slot = at<s, &S::vocab_size>,
       .help = "rows of the embedding; unset: the tokenizer's, rounded up to a multiple of 64",
       .limits = count,
       .plain_name = "vocab_size",
       .differs = kOurModel},
      {.name = "model.hidden_size",
       .slot = at<s, &S::hidden_size>,
       .help = "width of the residual stream",
       .limits = kWidth,
       .plain_name = "hidden_size",
       .differs = kOurModel},
      {.name = "model.intermediate_size",
       .slot = at<s, &S::intermediate_size>,
       .help = "width inside the feed-forward; unset: 8/3 hidden_size, rounded up to a multiple of 32",
       .limits = kWidth,
       .plain_name = "intermediate_size",
       .differs = kOurModel},
      {.name = "model.num_hidden_layers",
       .slot = at<s, &S::num_hidden_layers>,
       .help = "blocks",
       .limits = {.low = 1.0, .high = 65536.0},
       .plain_name = "num_layers",
       .differs = kOurModel},
      {.name = "model.num_attention_heads",
       .slot = at<s, &S::num_attention_heads>,
       .help = "query heads",
       .limits = kWidth,
       .plain_name = "num_heads",
       .differs = kOurModel},
      {.name = "model.num_key_value_heads",
       .slot = at<s, &S::num_key_value_heads>,
       .help = "key and value heads, a divisor of the query heads; unset: as many",
       .limits = kWidth,
       .plain_name = "num_kv_heads",
       .differs = kOurModel},
      {.name = "model.head_dim",
       .slot = at<s, &S::head_dim>,
       .help = "width of a head; unset: hidden_size / num_attention_heads",
       .limits = kWidth,
       .differs = kOurModel},
      {.name = "model.max_position_embeddings",
       .slot = at<s, &S::max_position_embeddings>,
       .help = "longest context, as config.json states it; unset: training.seq_len",
       .limits = count,
       .differs = kOurModel},
      {.name = "model.rms_norm_eps",
       .slot = at<s, &S::rms_norm_eps>,
       .help = "added to the mean square in a norm",
       .limits = kFromZero,
       .differs = kOurModel},
      {.name = "model.rope_theta",
       .slot = at<s, &S::rope_theta>,
       .help = "base of the rotary embedding",
       .limits = kAboveZero,
       .differs = kOurModel},
      {.name = "model.tie_word_embeddings",
       .slot = at<s, &S::tie_word_embeddings>,
       .help = "whether the output layer is the embedding",
       .differs = kOurModel},
      {.name = "model.initializer_range",
       .slot = at<s, &S::initializer_range>,
       .help = "standard deviation of initial weights",
       .limits = kFromZero,
       .differs = "Caravan's own, Hugging Face's meaning; torchtitan has 0.02 scaled by depth"},
  };
}

std::vector<Row> optimizer_rows() {
  using S = OptimizerSection;
  constexpr auto s = &Config::optimizer;
  return {
      {.name = "optimizer.name",
       .slot = at<s, &S::name>,
       .help = "the optimizer",
       .choices = {"AdamW"},
       .differs = "AdamW only; torchtitan also has Adam"},
      {.name = "optimizer.lr",
       .slot = at<s, &S::lr>,
       .help = "learning rate, which lr_scheduler scales",
       .limits = kFromZero,
       .plain_name = "lr"},
      {.name = "optimizer.beta1", .slot = at<s, &S::beta1>, .help = "decay of the first moment", .limits = kBelowOne},
      {.name = "optimizer.beta2", .slot = at<s, &S::beta2>, .help = "decay of the second moment", .limits = kBelowOne},
      {.name = "optimizer.eps",
       .slot = at<s, &S::eps>,
       .help = "added to the root of the second moment",
       .limits = kAboveZero},
      {.name = "optimizer.weight_decay",
       .slot = at<s, &S::weight_decay>,
       .help = "decoupled weight decay",
       .limits = kFromZero},
      {.name = "optimizer.decay_scope",
       .slot = at<s, &S::decay_scope>,
       .help = "what decays: all parameters, or matrices alone (no norms, no biases)",
       .choices = {"all", "matrices"},
       .differs = "Caravan's own; torchtitan always decays all"},
  };
}

std::vector<Row> lr_scheduler_rows() {
  using S = LrSchedulerSection;
  constexpr auto s = &Config::lr_scheduler;
  return {
      {.name = "lr_scheduler.warmup_steps",
       .slot = at<s, &S::warmup_steps>,
       .help = "steps over which the rate rises",
       .limits = kStepsOrZero},
      {.name = "lr_scheduler.total_steps",
       .slot = at<s, &S::total_steps>,
       .help = "steps that the schedule is laid out for; unset: the run's",
       .limits = kSteps},
      {.name = "lr_scheduler.decay_ratio",
       .slot = at<s, &S::decay_ratio>,
       .help = "share of the steps over which the rate falls; unset: all after the warm-up",
       .limits = kShare},
      {.name = "lr_scheduler.decay_type",
       .slot = at<s, &S::decay_type>,
       .help = "shape of the fall",
       .choices = {"linear", "sqrt", "cosine"}},
      {.name = "lr_scheduler.min_lr_factor",
       .slot = at<s, &S::min_lr_factor>,
       .help = "share of the rate at which the fall ends",
       .limits = kShare},
  };
}

std::vector<Row> training_rows() {
  using S = TrainingSection;
  constexpr auto s = &Config::training;
  return {
      {.name = "training.dataset_path",
       .slot = at<s, &S::dataset_path>,
       .help = "files or folders to train on: text, JSONL (.gz, .zst) or token shards",
       .plain_name = "data",
       .differs = kMorePaths},
      {.name = "training.dataset_weights",
       .slot = at<s, &S::dataset_weights>,
       .help = "share of the tokens that each path gives, one number a path; empty: one path after the other",
       .limits = kAboveZero,
       .differs = kOurs},
      {.name = "training.dataset_cache",
       .slot = at<s, &S::dataset_cache>,
       .help = "folder for tokenized data; empty: data below job.dump_folder",
       .differs = kOurs},
      {.name = "training.local_batch_size",
       .slot = at<s, &S::local_batch_size>,
       .help = "rows of one micro-batch",
       .limits = {.low = 1.0, .high = kWidest},
       .plain_name = "batch_size"},
      {.name = "training.global_batch_size",
       .slot = at<s, &S::global_batch_size>,
       .help = "rows of one step over all ranks; -1: one micro-batch a rank",
       .limits = {.low = 1.0, .high = kMostIds, .or_minus_one = true}},
      {.name = "training.seq_len",
       .slot = at<s, &S::seq_len>,
       .help = "ids that a row holds",
       .limits = {.low = 1.0, .high = kLongestRow},
       .plain_name = "max_seq_len"},
      {.name = "training.steps",
       .slot = at<s, &S::steps>,
       .help = fmt::format("optimizer steps of the run; unset: what training.epochs come to, without epochs {}",
                           kDefaultSteps),
       .limits = kSteps,
       .plain_name = "steps"},
      {.name = "training.epochs",
       .slot = at<s, &S::epochs>,
       .help = "passes over the data, instead of training.steps; 0: steps decide",
       .limits = kStepsOrZero,
       .plain_name = "epochs",
       .differs = kOurs},
      {.name = "training.max_norm",
       .slot = at<s, &S::max_norm>,
       .help = "norm that gradients are clipped to; 0: no clipping",
       .limits = kFromZero,
       .differs = "0 switches clipping off; there it makes all gradients 0"},
      {.name = "training.packing",
       .slot = at<s, &S::packing>,
       .help = "documents longer than what is left of a row: split them, or begin a new row and keep them whole",
       .choices = {"split", "whole"},
       .differs = "Caravan's own; attention, positions and targets never cross a document's end"},
      {.name = "training.shuffle",
       .slot = at<s, &S::shuffle>,
       .help = "whether documents come in a random order, another one in each epoch",
       .differs = "Caravan's own; torchtitan 0.2 does not shuffle"},
      {.name = "training.dtype",
       .slot = at<s, &S::dtype>,
       .help = "type of the weights that the optimizer holds",
       .choices = {"float32", "float64"},
       .differs = "float64 (with training.backend ref, or on a GPU) instead of bfloat16"},
      {.name = "training.mixed_precision_param",
       .slot = at<s, &S::mixed_precision_param>,
       .help = "type that the layers compute in; auto: bfloat16 where the processor multiplies it and on GPUs, else "
               "float32; float16, with loss scaling, is for GPUs (slow on processors)",
       .choices = {"auto", "bfloat16", "float16", "float32"},
       .differs = "auto instead of bfloat16, and float16"},
      {.name = "training.loss_scale",
       .slot = at<s, &S::loss_scale>,
       .help = "float16: what gradients are multiplied by at first; halved when they overflow",
       .limits = {.low = 1.0, .high = 16777216.0},
       .differs = kOurs},
      {.name = "training.loss_scale_interval",
       .slot = at<s, &S::loss_scale_interval>,
       .help = "float16: steps in a row without overflow until loss_scale is doubled",
       .limits = {.low = 1.0},
       .differs = kOurs},
      {.name = "training.on_nan",
       .slot = at<s, &S::on_nan>,
       .help = "a loss or gradient that is not finite: stop the run, or skip the step",
       .choices = {"stop", "skip"},
       .differs = kOurs},
      {.name = "training.prefetch_steps",
       .slot = at<s, &S::prefetch_steps>,
       .help = "steps whose data is read ahead",
       .limits = {.low = 0.0, .high = 1024.0},
       .differs = kOurs},
      {.name = "training.threads",
       .slot = at<s, &S::threads>,
       .help = "threads to compute with; 0: the cores this process may use",
       .limits = {.low = 0.0, .high = 1024.0},
       .differs = kOurs},
      {.name = "training.pin_threads",
       .slot = at<s, &S::pin_threads>,
       .help = "tie each computing thread but the first to a processor of its own; for machines with no other work",
       .differs = kOurs},
      {.name = "training.device",
       .slot = at<s, &S::device>,
       .help = "where to compute: cpu, cuda (the first GPU) or cuda:N",
       .plain_name = "device",
       .differs = kOurs},
      {.name = "training.backend",
       .slot = at<s, &S::backend>,
       .help = "kernels on the processor: cpu, or ref, the slow reference that also has float64",
       .choices = {"cpu", "ref"},
       .differs = kOurs},
  };
}

std::vector<Row> parallelism_rows() {
  using S = ParallelismSection;
  constexpr auto s = &Config::parallelism;
  const char* const only_one = "only 1 for now";
  return {
      {.name = "parallelism.data_parallel_replicate_degree",
       .slot = at<s, &S::data_parallel_replicate_degree>,
       .help = "copies of the model",
       .limits = kDegree,
       .differs = only_one},
      {.name = "parallelism.data_parallel_shard_degree",
       .slot = at<s, &S::data_parallel_shard_degree>,
       .help = "ranks that share one copy's weights; -1: all that are left",
       .limits = {.low = 1.0, .high = kWidest, .or_minus_one = true},
       .differs = "only 1 and -1 for now"},
      {.name = "parallelism.tensor_parallel_degree",
       .slot = at<s, &S::tensor_parallel_degree>,
       .help = "ranks that share each product",
       .limits = kDegree,
       .differs = only_one},
      {.name = "parallelism.pipeline_parallel_degree",
       .slot = at<s, &S::pipeline_parallel_degree>,
       .help = "stages of layers",
       .limits = kDegree,
       .differs = only_one},
      {.name = "parallelism.context_parallel_degree",
       .slot = at<s, &S::context_parallel_degree>,
       .help = "ranks that share each sequence",
       .limits = kDegree,
       .differs = only_one},
  };
}

std::vector<Row> checkpoint_rows() {
  using S = CheckpointSection;
  constexpr auto s = &Config::checkpoint;
  return {
      {.name = "checkpoint.enable",
       .slot = at<s, &S::enable>,
       .help = "whether the run can be resumed",
       .differs = "true instead of false"},
      {.name = "checkpoint.folder",
       .slot = at<s, &S::folder>,
       .help = "folder of the checkpoints, below job.dump_folder"},
      {.name = "checkpoint.interval", .slot = at<s, &S::interval>, .help = "steps between saves", .limits = kSteps},
      {.name = "checkpoint.initial_load_path",
       .slot = at<s, &S::initial_load_path>,
       .help = "what a new run starts from: a checkpoint, or a Hugging Face folder; empty: random weights"},
      {.name = "checkpoint.initial_load_model_only",
       .slot = at<s, &S::initial_load_model_only>,
       .help = "take the weights alone from initial_load_path"},
      {.name = "checkpoint.initial_load_in_hf",
       .slot = at<s, &S::initial_load_in_hf>,
       .help = "initial_load_path is a Hugging Face folder",
       .differs = "needs initial_load_path; without a [model] section the architecture comes from its config.json"},
      {.name = "checkpoint.last_save_model_only",
       .slot = at<s, &S::last_save_model_only>,
       .help = "keep the weights alone in the last save; the run cannot be continued then",
       .differs = "false instead of true"},
      {.name = "checkpoint.last_save_in_hf",
       .slot = at<s, &S::last_save_in_hf>,
       .help = "write the final model as a Hugging Face folder",
       .differs = "true instead of false; written beside the last checkpoint, not instead of it"},
      {.name = "checkpoint.hf_folder",
       .slot = at<s, &S::hf_folder>,
       .help = "the Hugging Face folder, below job.dump_folder",
       .differs = kOurs},
      {.name = "checkpoint.export_dtype",
       .slot = at<s, &S::export_dtype>,
       .help = "type of the weights in the final model",
       .choices = {"float32", "bfloat16", "float16"}},
      {.name = "checkpoint.async_mode",
       .slot = at<s, &S::async_mode>,
       .help = "write checkpoints while training goes on, or wait for them",
       .choices = {"disabled", "async"},
       .differs = "async instead of disabled; there is no async_with_pinned_mem"},
      {.name = "checkpoint.keep_latest_k",
       .slot = at<s, &S::keep_latest_k>,
       .help = "checkpoints to keep; 0: all",
       .limits = kStepsOrZero,
       .differs = "1 is allowed: the older one goes when the newer one is whole"},
      {.name = "checkpoint.load_step",
       .slot = at<s, &S::load_step>,
       .help = "step to resume from; -1: the newest whole one",
       .limits = {.low = 0.0, .high = kMostSteps, .or_minus_one = true}},
      {.name = "checkpoint.exclude_from_loading",
       .slot = at<s, &S::exclude_from_loading>,
       .help = "what a resumed run starts afresh",
       .choices = {"optimizer", "lr_scheduler", "dataloader", "train_state"}},
      {.name = "checkpoint.enable_first_step_checkpoint",
       .slot = at<s, &S::enable_first_step_checkpoint>,
       .help = "save after step 1 too, to see early that it works"},
      {.name = "checkpoint.load_only", .slot = at<s, &S::load_only>, .help = "load, but save nothing"},
      {.name = "checkpoint.on_save_failure",
       .slot = at<s, &S::on_save_failure>,
       .help = "a save that fails (a full disk): stop the run, pause until it works, or go on without it",
       .choices = {"stop", "pause", "continue"},
       .differs = kOurs},
      {.name = "checkpoint.pause_seconds",
       .slot = at<s, &S::pause_seconds>,
       .help = "on_save_failure pause: seconds between two attempts",
       .limits = {.low = 0.0, .high = 86400.0},
       .differs = kOurs},
  };
}

std::vector<Row> observing_rows() {
  using A = ActivationCheckpointSection;
  using M = MetricsSection;
  constexpr auto a = &Config::activation_checkpoint;
  constexpr auto m = &Config::metrics;
  return {
      {.name = "activation_checkpoint.mode",
       .slot = at<a, &A::mode>,
       .help = "what is computed again in the backward pass instead of kept",
       .choices = {"none", "full", "selective"},
       .differs = "none instead of selective; there is no memory_budget"},
      {.name = "activation_checkpoint.selective_ac_option",
       .slot = at<a, &A::selective_ac_option>,
       .help = "selective: op (keep every other product), or a number n (all of every n-th layer)",
       .differs = "op instead of 2"},
      {.name = "metrics.log_freq",
       .slot = at<m, &M::log_freq>,
       .help = "steps between lines on the console; metrics.jsonl has every step",
       .limits = kSteps},
      {.name = "metrics.enable_tensorboard",
       .slot = at<m, &M::enable_tensorboard>,
       .help = "write TensorBoard events",
       .differs = "true instead of false"},
      {.name = "metrics.save_tb_folder",
       .slot = at<m, &M::save_tb_folder>,
       .help = "folder of the events, below job.dump_folder",
       .differs = "no folder named after the time below it"},
      {.name = "metrics.disable_color_printing",
       .slot = at<m, &M::disable_color_printing>,
       .help = "no colours on a terminal"},
  };
}

std::vector<Row> validation_rows() {
  using S = ValidationSection;
  constexpr auto s = &Config::validation;
  return {
      {.name = "validation.enable",
       .slot = at<s, &S::enable>,
       .help = "whether held-out loss is measured",
       .differs = "the loss is the mean over all targets, not a mean of the batches' means"},
      {.name = "validation.dataset_path",
       .slot = at<s, &S::dataset_path>,
       .help = "files or folders to measure on",
       .differs = kMorePaths},
      {.name = "validation.fraction",
       .slot = at<s, &S::fraction>,
       .help = "without a path: share of the training documents, at their end, that is held out",
       .limits = kBelowOne,
       .differs = kOurs},
      {.name = "validation.local_batch_size",
       .slot = at<s, &S::local_batch_size>,
       .help = "rows of one micro-batch",
       .limits = {.low = 1.0, .high = kWidest}},
      {.name = "validation.seq_len",
       .slot = at<s, &S::seq_len>,
       .help = "ids that a row holds; 0: training.seq_len",
       .limits = {.low = 0.0, .high = kLongestRow},
       .differs = "0 (as in training) instead of 2048"},
      {.name = "validation.freq", .slot = at<s, &S::freq>, .help = "steps between measurements", .limits = kSteps},
      {.name = "validation.steps",
       .slot = at<s, &S::steps>,
       .help = "micro-batches to measure at most; -1: all",
       .limits = {.low = 1.0, .high = kMostSteps, .or_minus_one = true}},
  };
}

std::vector<Row> sampling_rows() {
  using S = SamplingSection;
  constexpr auto s = &Config::sampling;
  return {
      {.name = "sampling.prompts",
       .slot = at<s, &S::prompts>,
       .help = "texts that the model continues while it trains",
       .differs = kOurs},
      {.name = "sampling.freq",
       .slot = at<s, &S::freq>,
       .help = "steps between samples; 0: none",
       .limits = kStepsOrZero,
       .differs = kOurs},
      {.name = "sampling.max_new_tokens",
       .slot = at<s, &S::max_new_tokens>,
       .help = "ids of a sample at most",
       .limits = {.low = 1.0, .high = kLongestRow},
       .differs = kOurs},
      {.name = "sampling.temperature",
       .slot = at<s, &S::temperature>,
       .help = "what logits are divided by; 0: always the likeliest id",
       .limits = kFromZero,
       .differs = kOurs},
      {.name = "sampling.top_k",
       .slot = at<s, &S::top_k>,
       .help = "draw from the k likeliest ids; 0: from all",
       .limits = {.low = 0.0, .high = kMostIds},
       .differs = kOurs},
      {.name = "sampling.top_p",
       .slot = at<s, &S::top_p>,
       .help = "draw from the fewest ids whose probabilities reach it",
       .limits = {.low = 0.0, .high = 1.0, .above_low = true},
       .differs = kOurs},
      {.name = "debug.seed",
       .slot = at<&Config::debug, &DebugSection::seed>,
       .help = "of initial weights, order of data and samples",
       .limits = kFromZero,
       .plain_name = "seed",
       .differs = "42 instead of a random one"},
      {.name = "debug.deterministic",
       .slot = at<&Config::debug, &DebugSection::deterministic>,
       .help = "the same bits every run; false lets a GPU's attention add up gradients in any order, which is faster",
       .differs = "true instead of false"},
  };
}

// "1", "0.5", "1048576": without a fraction where there is none.
std::string plain(double value) {
  return fmt::format("{}", value == static_cast<double>(static_cast<std::int64_t>(value))
                               ? std::to_string(static_cast<std::int64_t>(value))
                               : fmt::format("{}", value));
}

}  // namespace

bool Limits::hold(double value) const {
  const bool inside = (above_low ? value > low : value >= low) && (below_high ? value < high : value <= high);
  return inside || (or_minus_one && value == -1.0);
}

std::string Limits::text() const {
  const bool has_low = low > -std::numeric_limits<double>::infinity();
  const bool has_high = high < std::numeric_limits<double>::infinity();
  std::string words = or_minus_one ? ", -1 or" : has_low || has_high ? "," : "";
  if (has_low) {
    words += (above_low ? " above " : " at least ") + plain(low);
  }
  if (has_high) {
    words += (has_low ? " and " : " ") + std::string(below_high ? "below " : "at most ") + plain(high);
  }
  return words;
}

const std::vector<Row>& rows() {
  static const std::vector<Row> all = [] {
    std::vector<Row> list;
    for (const auto make : {job_rows, model_rows, optimizer_rows, lr_scheduler_rows, training_rows, parallelism_rows,
                            checkpoint_rows, observing_rows, validation_rows, sampling_rows}) {
      const std::vector<Row> some = make();
      list.insert(list.end(), some.begin(), some.end());
    }
    return list;
  }();
  return all;
}

const Row* find_row(std::string_view name) {
  const auto found = std::ranges::find_if(
      rows(), [&](const Row& row) { return row.name == name || (!row.plain_name.empty() && row.plain_name == name); });
  return found == rows().end() ? nullptr : &*found;
}

}  // namespace caravan::train

// The keys of torchtitan 0.2 that Caravan does not have, and what to do about them.
#include <algorithm>

#include "caravan/train/config_table.h"

namespace caravan::train {

namespace {

const char* const kDatasetAdvice = "name your files in training.dataset_path instead";
const char* const kValidationAdvice = "name your files in validation.dataset_path instead";

}  // namespace

// A switch is accepted where it is off; what only tunes a switched-off thing is accepted as it stands, so that a
// torchtitan file needs few changes.
const std::vector<ForeignKey>& foreign_keys() {
  static const std::vector<ForeignKey> keys = {
      {"job.config_file", "", "name the file on the command line: caravan train CONFIG.toml"},
      {"job.print_config", "false", "use the option --print-config"},
      {"job.save_config_file", "", "the resolved configuration is always saved in job.dump_folder; remove it"},
      {"job.custom_config_module", "\"\"", ""},
      {"model.name", "\"llama3\"", "Caravan trains Llama 1, 2 and 3.x; write \"llama3\" or remove it"},
      {"model.tokenizer_path", "", "use model.hf_assets_path"},
      {"model.converters", "[]", ""},
      {"model.print_after_conversion", "false", ""},
      {"optimizer.implementation", "*", ""},
      {"optimizer.early_step_in_backward", "false", ""},
      {"training.dataset", "", kDatasetAdvice},
      {"training.enable_cpu_offload", "false", ""},
      {"training.mixed_precision_reduce", "\"float32\"", "gradients are summed in float32; remove it"},
      {"training.gc_freq", "*", ""},
      {"training.gc_debug", "false", ""},
      {"training.dataloader.", "", "see training.prefetch_steps; remove it"},
      {"parallelism.fsdp_reshard_after_forward", "*", ""},
      {"parallelism.disable_loss_parallel", "*", ""},
      {"parallelism.enable_async_tensor_parallel", "false", ""},
      {"parallelism.module_fqns_per_model_part", "", ""},
      {"parallelism.pipeline_parallel_first_stage_less_layers", "*", ""},
      {"parallelism.pipeline_parallel_last_stage_less_layers", "*", ""},
      {"parallelism.pipeline_parallel_layers_per_stage", "*", ""},
      {"parallelism.pipeline_parallel_schedule", "*", ""},
      {"parallelism.pipeline_parallel_schedule_csv", "\"\"", ""},
      {"parallelism.pipeline_parallel_microbatch_size", "*", ""},
      {"parallelism.pipeline_parallel_expert_parallel_overlap", "*", ""},
      {"parallelism.context_parallel_load_balancer", "*", ""},
      {"parallelism.context_parallel_rotate_method", "*", ""},
      {"parallelism.expert_parallel_degree", "1", "Llama 1, 2 and 3.x have no experts; remove it"},
      {"parallelism.expert_tensor_parallel_degree", "1", "Llama 1, 2 and 3.x have no experts; remove it"},
      {"parallelism.expert_parallel_comm_backend", "*", ""},
      {"checkpoint.enable_checkpoint", "", "use checkpoint.enable"},
      {"checkpoint.enable_ft_dataloader_checkpoints", "*", ""},
      {"checkpoint.initial_load_in_hf_quantized", "false", ""},
      {"checkpoint.create_seed_checkpoint", "false", "initial weights are the same on every layout here; remove it"},
      {"activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns", "*", ""},
      {"activation_checkpoint.early_stop", "*", ""},
      {"activation_checkpoint.memory_budget", "*", ""},
      {"activation_checkpoint.visualize_memory_budget_pareto", "false", ""},
      {"activation_checkpoint.preserve_rng_state", "*", ""},
      {"activation_checkpoint.determinism_check", "*", ""},
      {"activation_checkpoint.debug", "false", ""},
      {"metrics.save_for_all_ranks", "false", ""},
      {"metrics.enable_wandb", "false", "metrics.jsonl and TensorBoard events are written; remove it"},
      {"validation.dataset", "", kValidationAdvice},
      {"validation.enabled", "", "use validation.enable"},
      {"validation.dataloader.", "", ""},
      {"debug.deterministic_warn_only", "*", ""},
      {"debug.moe_force_load_balance", "false", ""},
      {"profiling.enable_profiling", "false", "use the option --trace FILE.json"},
      {"profiling.enable_memory_snapshot", "false", ""},
      {"profiling.", "*", ""},
      {"compile.enable", "false", ""},
      {"compile.", "*", ""},
      {"quantize.", "*", ""},
      {"float8.", "*", ""},
      {"comm.mode", "\"default\"", ""},
      {"comm.", "*", ""},
      {"memory_estimation.enable", "false", "see caravan plan; remove it"},
      {"memory_estimation.", "*", ""},
      {"fault_tolerance.enable", "false", ""},
      {"fault_tolerance.", "*", ""},
      {"experimental.custom_import", "\"\"", ""},
      {"experimental.custom_args_module", "\"\"", ""},
      {"experimental.", "", ""},
  };
  return keys;
}

const ForeignKey* find_foreign(std::string_view name) {
  const auto found = std::ranges::find_if(foreign_keys(), [&](const ForeignKey& key) {
    return key.name.ends_with('.') ? name.starts_with(key.name) : name == key.name;
  });
  return found == foreign_keys().end() ? nullptr : &*found;
}

}  // namespace caravan::train

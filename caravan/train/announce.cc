#include "caravan/train/announce.h"

#include <fmt/format.h>

#include <ostream>

#include "caravan/base/text.h"
#include "caravan/tensor/cuda_memory.h"
#include "caravan/train/setup.h"

namespace caravan::train {

void print_start(const Config& config, const Prepared& prepared, const ops::Context& ctx, const MemoryPlan& plan,
                 std::ostream& out) {
  const model::LlamaConfig& model = prepared.architecture.model;
  if (!config.job.description.empty()) {
    out << config.job.description << "\n";
  }
  out << fmt::format("model: {} parameters, {} layers of {}, vocabulary {}\n",
                     grouped(parameter_count(model::parameter_specs(model))), model.num_hidden_layers,
                     model.hidden_size, grouped(model.vocab_size));
  out << fmt::format(
      "data: {} tokens in {} documents, {} rows of {} an epoch{}\n", grouped(prepared.data.tokens),
      grouped(prepared.data.documents), grouped(prepared.rows->rows_per_epoch()), config.training.seq_len,
      prepared.validation ? fmt::format("; validation: {} rows", grouped(prepared.validation_rows)) : "");
  out << fmt::format("steps: {} of {} rows; {} compute, {} masters; {} threads, {}\n",
                     grouped(total_steps(config, prepared.rows->total_rows(), 1)),
                     micro_batches(config, 1) * config.training.local_batch_size, to_string(compute_dtype(config, ctx)),
                     config.training.dtype == "float64" ? "f64" : "f32", ctx.threads, to_string(ctx.isa));
  const optim::LrSchedule schedule =
      trainer_options(config, total_steps(config, prepared.rows->total_rows(), 1)).schedule;
  if (schedule.warmup_steps > schedule.total_steps) {
    out << fmt::format(
        "note: lr_scheduler.warmup_steps {} is more than there are steps: the learning rate rises to the "
        "end and never falls\n",
        schedule.warmup_steps);
  }
  if (ctx.backend == ops::Backend::kCuda) {
    out << fmt::format("device: {}, {}\n", config.training.device,
                       cuda_memory::describe(ctx.allocator->device().index));
  }
  out << format_plan(plan);
}

std::string how_to_go_on(const Config& config, const std::string& command, std::int64_t step) {
  const CheckpointSection& section = config.checkpoint;
  if (!section.enable || section.load_only) {
    return fmt::format("nothing was saved, as checkpoint.{} says", section.enable ? "load_only" : "enable");
  }
  std::string text = "to go on: " + command;
  if (section.load_step >= 0) {
    text += fmt::format(", with checkpoint.load_step {} instead of {}", step, section.load_step);
  }
  if (!section.exclude_from_loading.empty()) {
    text += ", without checkpoint.exclude_from_loading";
  }
  return text;
}

std::string not_fitting(const Config& config, const model_io::HfConfig& architecture, const Prompts& prompts,
                        const MemoryPlan& plan) {
  std::string message = fmt::format("this training needs {} bytes of memory and {} are available",
                                    grouped(plan.needed()), grouped(plan.available.value_or(0)));
  if (const auto suggestion = suggest(config, architecture, prompts, plan.available)) {
    std::string changes;
    for (const std::string& change : suggestion->changes) {
      changes += " " + change;
    }
    return fmt::format("{}; the nearest setting that fits ({} bytes):{}", message, grouped(suggestion->plan.needed()),
                       changes);
  }
  return message + "; no smaller batch or row makes it fit: choose a smaller model";
}

}  // namespace caravan::train

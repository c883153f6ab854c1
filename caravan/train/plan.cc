#include "caravan/train/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "caravan/base/text.h"
#include "caravan/generate/decoder.h"
#include "caravan/train/trainer.h"

namespace caravan::train {

namespace {

// What sample_text() allocates: a prompt, then single tokens; the second of them meets what the first left.
void walk_through_sample(ops::Context& ctx, const model::Llama& model, const std::vector<std::int32_t>& prompt,
                         std::int64_t max_new_tokens) {
  const std::int64_t room = nn::max_sequence_length(model.config().rope) - static_cast<std::int64_t>(prompt.size());
  const std::int64_t new_tokens = std::min(max_new_tokens, room);
  if (prompt.empty() || new_tokens < 1) {
    return;
  }
  generate::Decoder decoder(ctx, model, {static_cast<std::int64_t>(prompt.size()) + new_tokens - 1});
  decoder.extend({prompt});
  for (std::int64_t i = 1; i < std::min<std::int64_t>(3, new_tokens); ++i) {
    decoder.extend({{0}});
  }
}

std::string line(const char* name, std::int64_t bytes) {
  return fmt::format("  {:<20} {:>18}\n", name, grouped(bytes));
}

std::string line(const char* name, std::int64_t bytes, std::int64_t used) {
  return fmt::format("  {:<20} {:>18} {:>18}\n", name, grouped(bytes), grouped(used));
}

// What a suggestion may change, in the order of its harm.
struct Change {
  std::string mode;
  std::int64_t local_batch;
  std::int64_t seq_len;
};

std::vector<Change> changes_to_try(const Config& config) {
  const std::string& mode = config.activation_checkpoint.mode;
  std::vector<std::string> modes = {mode};
  if (mode == "none") {
    modes.push_back("selective");
  }
  if (mode != "full") {
    modes.push_back("full");
  }
  std::vector<Change> result;
  constexpr std::int64_t kShortest = 2;  // an id and its target
  for (std::int64_t seq_len = config.training.seq_len; seq_len >= kShortest; seq_len /= 2) {
    for (std::int64_t batch = config.training.local_batch_size; batch >= 1; batch /= 2) {
      for (const std::string& one : modes) {
        result.push_back({one, batch, seq_len});
      }
    }
  }
  return result;
}

Config changed_by(const Config& config, const Change& change) {
  const std::int64_t global = micro_batches(config, 1) * config.training.local_batch_size;
  Config changed = config;
  changed.activation_checkpoint.mode = change.mode;
  changed.training.local_batch_size = change.local_batch;
  changed.training.global_batch_size = global / change.local_batch * change.local_batch;
  changed.training.seq_len = change.seq_len;
  changed.validation.local_batch_size = std::min(config.validation.local_batch_size, change.local_batch);
  return changed;
}

}  // namespace

Prompts sample_prompts(const Config& config, const tokenizer::Tokenizer* tokenizer) {
  Prompts result;
  if (config.sampling.freq > 0 && tokenizer != nullptr) {
    for (const std::string& prompt : config.sampling.prompts) {
      result.push_back(tokenizer->encode(prompt));
    }
  }
  return result;
}

std::vector<MicroBatch> full_batches(const Config& config, int ranks) {
  const std::int64_t rows = config.training.local_batch_size;
  const std::vector<std::int64_t> lengths(static_cast<std::size_t>(rows), config.training.seq_len);
  MicroBatch batch{pack(lengths), {}, {}};
  batch.ids.assign(static_cast<std::size_t>(batch.layout.rows), 0);
  batch.targets = batch.ids;
  return std::vector<MicroBatch>(static_cast<std::size_t>(micro_batches(config, ranks)), batch);
}

MemoryPlan plan_memory(const Config& config, const model_io::HfConfig& architecture,
                       const std::vector<MicroBatch>& batches, const Prompts& prompts,
                       std::optional<std::int64_t> available) {
  ops::ContextOptions options = context_options(config);
  options.dry_run = true;
  ops::Context ctx = ops::make_context(options);
  const DType dtype = compute_dtype(config, ctx);
  const auto ranks = comm::make_self();
  Trainer trainer(ctx, model_io::create_model(ctx, architecture, dtype, 0, /*training=*/true),
                  trainer_options(config, 1), *ranks);
  Config evaluated = config;
  evaluated.training.local_batch_size = config.validation.local_batch_size;
  evaluated.training.global_batch_size = -1;
  evaluated.training.seq_len = config.validation.seq_len > 0 ? config.validation.seq_len : config.training.seq_len;
  // Twice: the second time each meets what the others left behind.
  for (int round = 0; round < 2; ++round) {
    trainer.step(batches);
    if (config.validation.enable) {
      trainer.evaluate(full_batches(evaluated, 1));
    }
    for (const std::vector<std::int32_t>& prompt : prompts) {
      walk_through_sample(ctx, *trainer.model().llama, prompt, config.sampling.max_new_tokens);
    }
  }
  MemoryPlan plan;
  plan.use = ctx.allocator->use();
  if (config.checkpoint.enable) {
    for (const checkpoint::NamedTensor& one : trainer.tensors()) {
      plan.staging_bytes += one.tensor.bytes();
    }
  }
  plan.available = available;
  plan.on_gpu = ctx.backend == ops::Backend::kCuda;
  return plan;
}

std::optional<Suggestion> suggest(const Config& config, const model_io::HfConfig& architecture, const Prompts& prompts,
                                  std::optional<std::int64_t> available) {
  const std::vector<Change> changes = changes_to_try(config);
  // The last is the smallest: where it does not fit, none does, and a large model takes long to plan so often.
  if (changes.empty() || !plan_memory(changed_by(config, changes.back()), architecture,
                                      full_batches(changed_by(config, changes.back()), 1), prompts, available)
                              .fits()) {
    return std::nullopt;
  }
  for (const Change& change : changes) {
    const Config changed = changed_by(config, change);
    MemoryPlan plan = plan_memory(changed, architecture, full_batches(changed, 1), prompts, available);
    if (!plan.fits()) {
      continue;
    }
    Suggestion result{{}, plan};
    const auto note = [&](bool differs, const char* key, const auto& value) {
      if (differs) {
        result.changes.push_back(fmt::format("--{} {}", key, value));
      }
    };
    note(change.mode != config.activation_checkpoint.mode, "activation_checkpoint.mode", change.mode);
    note(change.local_batch != config.training.local_batch_size, "training.local_batch_size", change.local_batch);
    note(change.local_batch != config.training.local_batch_size, "training.global_batch_size",
         changed.training.global_batch_size);
    note(changed.validation.local_batch_size != config.validation.local_batch_size && config.validation.enable,
         "validation.local_batch_size", changed.validation.local_batch_size);
    note(change.seq_len != config.training.seq_len, "training.seq_len", change.seq_len);
    return result;
  }
  return std::nullopt;
}

std::string format_plan(const MemoryPlan& plan) {
  std::string text = fmt::format("memory               {:>20}\n", "planned bytes");
  for (int i = 0; i < kSegmentCount; ++i) {
    text += line(to_string(static_cast<Segment>(i)), plan.use.segments[static_cast<std::size_t>(i)].peak_bytes);
  }
  text += line("all at once", plan.use.high_water);
  text += line(plan.on_gpu ? "staging on the host" : "checkpoint staging", plan.staging_bytes);
  text += line("needed", plan.needed());
  if (plan.available) {
    text += line("available", *plan.available);
  } else {
    text += fmt::format("  {:<20} {:>18}\n", "available", "no GPU to ask");
  }
  return text;
}

std::string format_used(const MemoryPlan& plan, const MemoryUse& used) {
  std::string text = fmt::format("memory               {:>20} {:>18}\n", "planned bytes", "used bytes");
  for (int i = 0; i < kSegmentCount; ++i) {
    const auto at = static_cast<std::size_t>(i);
    text += line(to_string(static_cast<Segment>(i)), plan.use.segments[at].peak_bytes, used.segments[at].peak_bytes);
  }
  text += line("all at once", plan.use.high_water, used.high_water);
  return text;
}

}  // namespace caravan::train

#include "caravan/train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "caravan/ops/trace.h"
#include "caravan/parallel/data_parallel.h"
#include "caravan/parallel/executor.h"
#include "caravan/tensor/copy.h"

namespace caravan::train {

namespace {

std::int64_t real_tokens(const std::vector<MicroBatch>& batches) {
  std::int64_t count = 0;
  for (const MicroBatch& batch : batches) {
    for (const Sequence& sequence : batch.layout.sequences) {
      count += sequence.length;
    }
  }
  return count;
}

// Without the sign that a NaN may have.
std::string in_words(double value) {
  return std::isnan(value) ? "nan" : fmt::format("{}", value);
}

double sum_over_ranks(ops::Context& ctx, comm::Communicator& ranks, double value) {
  if (ranks.size() == 1) {
    return value;
  }
  const Tensor tensor = ctx.allocate(DType::kF64, {1}, Segment::kWorkspace);
  copy_from_host(tensor, std::as_bytes(std::span(&value, 1)));
  ranks.all_reduce_sum(tensor);
  return ctx.dry_run() ? 0.0 : to_doubles(tensor).front();
}

void add_parts(std::vector<checkpoint::NamedTensor>& result, const autograd::Parameter& parameter, const Tensor& whole,
               const std::string& prefix, const std::string& suffix) {
  for (const ParamPart& part : parameter.spec.parts) {
    result.push_back({prefix + part.name + suffix, autograd::part_rows(whole, part).reshape(part.shape)});
  }
}

}  // namespace

Trainer::Trainer(ops::Context& ctx, model_io::LoadedModel model, const TrainerOptions& options,
                 comm::Communicator& ranks)
    : ctx_(ctx),
      model_(std::move(model)),
      options_(options),
      ranks_(ranks),
      alone_(comm::make_self()),
      optimizer_(ctx, *model_.weights, options.optimizer) {
  optim::validate(options_.schedule);
  if (model_.llama->dtype() == DType::kF16) {
    scaler_ = options_.loss_scaler;
  }
}

StepResult Trainer::step(const std::vector<MicroBatch>& batches) {
  const ops::TraceRange range(ctx_, "training step", [&] { return fmt::format("step {}", steps_ + 1); });
  autograd::WeightStore& store = *model_.weights;
  StepResult result;
  result.targets = valid_targets(batches);
  result.tokens = real_tokens(batches);
  if (ranks_.size() > 1) {
    result.targets = parallel::count_over_ranks(ctx_, ranks_, result.targets);
    result.tokens = parallel::count_over_ranks(ctx_, ranks_, result.tokens);
  }
  const double factor = optim::lr_factor(options_.schedule, steps_);
  result.lr = options_.optimizer.lr * factor;

  store.zero_gradients(ctx_);
  parallel::GradientReducer reducer(store, ranks_);
  parallel::ExecutorOptions executor;
  const double mean = 1.0 / static_cast<double>(std::max<std::int64_t>(1, result.targets));
  result.loss_scale = scaler_ ? scaler_->scale : 1.0;
  executor.loss_scale = mean * result.loss_scale;
  executor.checkpointing = options_.checkpointing;
  // The masters change after this step: what a pass has read for the last time goes, and its memory serves activations.
  executor.on_forward_done = [&](int unit) { store.release_packed(unit, ops::WeightUse::kForward); };
  executor.on_unit_done = [&](int unit) {
    store.release_packed(unit, ops::WeightUse::kBoth);
    if (ranks_.size() > 1) {
      reducer.unit_done(unit);
    }
  };
  const double loss_sum = parallel::run_schedule(
      ctx_, *model_.llama, parallel::accumulate(static_cast<int>(batches.size())), batches, *alone_, executor);
  if (ranks_.size() > 1) {
    reducer.finish();
  }
  result.loss = sum_over_ranks(ctx_, ranks_, loss_sum) * mean;
  {
    const ops::TraceRange norm_range(ctx_, "gradient norm");
    result.grad_norm = std::sqrt(optim::squared_gradient_norm(ctx_, store)) / result.loss_scale;
  }

  const bool finite = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
  if (!finite) {
    refuse_or_skip(result);
    result.applied = false;
  } else if (result.targets > 0 || ctx_.dry_run()) {
    const ops::TraceRange optimizer_range(ctx_, "optimizer");
    optimizer_.step(ctx_, factor, optim::clip_coefficient(result.grad_norm, options_.max_norm) / result.loss_scale);
  }
  if (scaler_ && !ctx_.dry_run()) {
    scaler_->update(finite);
  }
  ++steps_;
  tokens_seen_ += result.tokens;
  return result;
}

void Trainer::refuse_or_skip(const StepResult& result) const {
  if (scaler_ && result.loss_scale / 2 >= optim::LossScaler::kLeast) {
    return;
  }
  if (!options_.skip_non_finite || scaler_) {
    throw NonFiniteError(fmt::format("step {}: the loss is {} and the gradient norm {}{}; the step was not applied",
                                     steps_ + 1, in_words(result.loss), in_words(result.grad_norm),
                                     scaler_ ? fmt::format(" at a loss scale of {}", result.loss_scale) : ""));
  }
}

void Trainer::set_loss_scale(double scale, std::int64_t good_steps) {
  if (scaler_) {
    scaler_->scale = scale;
    scaler_->good_steps = good_steps;
  }
}

Evaluation Trainer::evaluate(const std::vector<MicroBatch>& batches) {
  Evaluation result;
  for (const MicroBatch& batch : batches) {
    autograd::Context pass(ctx_, batch.layout);
    const autograd::Value hidden = model_.llama->forward(pass, to_device(*ctx_.allocator, batch.ids));
    const autograd::Value losses = model_.llama->token_losses(pass, hidden, to_device(*ctx_.allocator, batch.targets));
    if (!ctx_.dry_run()) {
      for (const double one : to_doubles(losses.tensor)) {
        result.loss_sum += one;
      }
    }
  }
  result.targets = valid_targets(batches);
  return result;
}

std::vector<checkpoint::NamedTensor> Trainer::model_tensors() const {
  std::vector<checkpoint::NamedTensor> result;
  for (const autograd::Parameter& parameter : model_.weights->parameters()) {
    add_parts(result, parameter, parameter.stored(), "", "");
  }
  return result;
}

std::vector<checkpoint::NamedTensor> Trainer::tensors() const {
  std::vector<checkpoint::NamedTensor> result = model_tensors();
  for (const optim::Optimizer::Moments& moments : optimizer_.moments()) {
    add_parts(result, *moments.parameter, moments.first, "optimizer.state.", ".exp_avg");
    add_parts(result, *moments.parameter, moments.second, "optimizer.state.", ".exp_avg_sq");
  }
  return result;
}

void Trainer::restored(std::int64_t steps, std::int64_t optimizer_steps, std::int64_t tokens_seen) {
  model_.weights->masters_changed(ctx_);
  optimizer_.resume(optimizer_steps);
  steps_ = steps;
  tokens_seen_ = tokens_seen;
}

double flops_per_token(const model::LlamaConfig& config, std::int64_t seq_len) {
  double weights = static_cast<double>(config.vocab_size) * static_cast<double>(config.hidden_size);
  for (const ParamSpec& spec : model::parameter_specs(config)) {
    if (spec.decay == DecayGroup::kMatrix && spec.name != "lm_head.weight") {
      weights += static_cast<double>(spec.shape.elements());
    }
  }
  const double attention = 6.0 * static_cast<double>(config.num_hidden_layers) *
                           static_cast<double>(config.num_attention_heads * config.head_dim) *
                           static_cast<double>(seq_len);
  return 6.0 * weights + attention;
}

}  // namespace caravan::train

#include "caravan/train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <utility>

#include "caravan/ops/elementwise.h"
#include "caravan/ops/trace.h"
#include "caravan/parallel/data_parallel.h"

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

Tensor field(const Tensor& record, ops::StepField first, ops::StepField last) {
  return record.row_range(first, last + 1);
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
      optimizer_(ctx, *model_.weights, options.optimizer),
      record_(ctx.allocate(DType::kF64, {ops::kStepFields}, Segment::kOptimizer)),
      records_(record_) {
  optim::validate(options_.schedule);
  ops::zero(ctx, record_);
  if (model_.llama->dtype() == DType::kF16) {
    scaler_ = options_.loss_scaler;
  }
}

StepResult Trainer::step(const std::vector<MicroBatch>& batches) {
  begin_step(batches);
  return finish_step();
}

void Trainer::begin_step(const std::vector<MicroBatch>& batches) {
  if (!may_begin()) {
    throw Error("Trainer: of a model in f16 a step begins when the one before is finished");
  }
  Begun begun;
  begun.number = steps_ + under_way() + 1;
  const ops::TraceRange range(ctx_, "training step", [&] { return fmt::format("step {}", begun.number); });
  StepResult& result = begun.result;
  result.targets = valid_targets(batches);
  result.tokens = real_tokens(batches);
  if (ranks_.size() > 1) {
    result.targets = parallel::count_over_ranks(ctx_, ranks_, result.targets);
    result.tokens = parallel::count_over_ranks(ctx_, ranks_, result.tokens);
  }
  result.lr = options_.optimizer.lr * optim::lr_factor(options_.schedule, begun.number - 1 + schedule_ahead_);
  result.loss_scale = scaler_ ? scaler_->scale : 1.0;

  const std::array<double, 2> inputs{result.lr, result.targets > 0 ? 1.0 : 0.0};
  copy_from_host(field(record_, ops::kLr, ops::kHasTargets), std::as_bytes(std::span(inputs)));
  ops::StepRule rule;
  rule.loss_factor = 1.0 / static_cast<double>(std::max<std::int64_t>(1, result.targets));
  rule.loss_scale = result.loss_scale;
  rule.max_norm = options_.max_norm;
  rule.beta1 = options_.optimizer.beta1;
  rule.beta2 = options_.optimizer.beta2;
  rule.halts = !options_.skip_non_finite && !scaler_;
  ask(batches, rule);
  if (!ctx_.dry_run()) {
    records_.post();
  }
  begun_.push_back(begun);
}

bool Trainer::may_record() const {
  // A trace and a timer want to see ops, and ranks talk through the host.
  return ctx_.backend == ops::Backend::kCuda && ctx_.record_graphs && ranks_.size() == 1 && ctx_.trace == nullptr &&
         !ctx_.on_timed;
}

void Trainer::ask(const std::vector<MicroBatch>& batches, const ops::StepRule& rule) {
  Shape shape{{}, rule.loss_factor, rule.loss_scale};
  for (const MicroBatch& batch : batches) {
    shape.layouts.push_back(batch.layout);
  }
  if (!may_record() || shape != last_shape_) {
    last_shape_ = {};
    run(ctx_, parallel::place(ctx_, batches), rule);
    last_shape_ = std::move(shape);
    return;
  }
  // A recording packs its weights itself, where it did when it was made.
  model_.weights->release_packed();
  try {
    repeat(shape, batches, rule);
  } catch (const ops::NotRecordableError&) {
    // What it reads was pushed out since by other shapes, of an evaluation perhaps: this step makes it again.
    recorded_.reset();
    model_.weights->release_packed();
    run(ctx_, parallel::place(ctx_, batches), rule);
  }
}

void Trainer::repeat(const Shape& shape, const std::vector<MicroBatch>& batches, const ops::StepRule& rule) {
  if (recorded_ == nullptr || recorded_->shape != shape) {
    recorded_.reset();  // its memory first
    auto made = std::make_unique<Recorded>(shape, parallel::place(ctx_, batches));
    made->graph = std::make_unique<ops::Graph>(
        ctx_, [this, &placed = made->batches, rule](ops::Context& ctx) { run(ctx, placed, rule); });
    recorded_ = std::move(made);
  } else {
    for (std::size_t i = 0; i < batches.size(); ++i) {
      copy_from_host(recorded_->batches[i].ids, std::as_bytes(std::span(batches[i].ids)));
      copy_from_host(recorded_->batches[i].targets, std::as_bytes(std::span(batches[i].targets)));
    }
  }
  recorded_->graph->run();
}

void Trainer::run(ops::Context& ctx, const std::vector<parallel::PlacedBatch>& batches, const ops::StepRule& rule) {
  autograd::WeightStore& store = *model_.weights;
  store.zero_gradients(ctx);
  ops::zero(ctx, field(record_, ops::kLossSum, ops::kSquares));
  parallel::GradientReducer reducer(store, ranks_);
  parallel::ExecutorOptions executor;
  executor.loss_scale = rule.loss_factor * rule.loss_scale;
  executor.checkpointing = options_.checkpointing;
  // The masters change after this step: what a pass has read for the last time goes, and its memory serves activations.
  executor.on_forward_done = [&](int unit) { store.release_packed(unit, ops::WeightUse::kForward); };
  executor.on_unit_done = [&](int unit) {
    store.release_packed(unit, ops::WeightUse::kBoth);
    if (ranks_.size() > 1) {
      reducer.unit_done(unit);
    }
  };
  const Tensor loss_sum = field(record_, ops::kLossSum, ops::kLossSum);
  parallel::run_schedule(ctx, *model_.llama, parallel::accumulate(static_cast<int>(batches.size())), batches, *alone_,
                         loss_sum, executor);
  if (ranks_.size() > 1) {
    reducer.finish();
    ranks_.all_reduce_sum(loss_sum);
  }
  {
    const ops::TraceRange range(ctx, "gradient norm");
    optim::add_squared_gradients(ctx, field(record_, ops::kSquares, ops::kSquares), store);
    ops::decide_step(ctx, record_, rule);
  }
  const ops::TraceRange range(ctx, "optimizer");
  optimizer_.step(ctx, record_);
}

StepResult Trainer::finish_step() {
  if (begun_.empty()) {
    throw Error("Trainer: no step was begun");
  }
  Begun begun = begun_.front();
  StepResult& result = begun.result;
  if (!ctx_.dry_run()) {
    const std::vector<double> record = records_.take();
    result.loss = record[ops::kLoss];
    result.grad_norm = record[ops::kGradNorm];
    const bool finite = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
    if (!finite) {
      refuse_or_skip(begun);
      result.applied = false;
    }
    if (scaler_ && std::isfinite(result.loss)) {
      scaler_->update(finite);  // a loss that is no number says nothing of it
    }
    optimizer_.resume(static_cast<std::int64_t>(record[ops::kSteps]));
  }
  begun_.pop_front();
  ++steps_;
  tokens_seen_ += result.tokens;
  return result;
}

void Trainer::refuse_or_skip(const Begun& begun) {
  const StepResult& result = begun.result;
  // A loss that is no number is none of the gradients' scale.
  const bool rescales = scaler_ && std::isfinite(result.loss);
  if (rescales ? result.loss_scale / 2 >= optim::LossScaler::kLeast : options_.skip_non_finite) {
    return;
  }
  // What was begun since has moved nothing: the device was halted.
  begun_.pop_front();
  for (; !begun_.empty(); begun_.pop_front()) {
    records_.take();
  }
  ops::zero(ctx_, field(record_, ops::kHalted, ops::kHalted));
  throw NonFiniteError(fmt::format("step {}: the loss is {} and the gradient norm {}{}; the step was not applied",
                                   begun.number, in_words(result.loss), in_words(result.grad_norm),
                                   rescales ? fmt::format(" at a loss scale of {}", result.loss_scale) : ""));
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

void Trainer::restored(std::int64_t steps, std::int64_t optimizer_steps, std::int64_t tokens_seen,
                       std::int64_t schedule_steps) {
  model_.weights->masters_changed(ctx_);
  optimizer_.resume(optimizer_steps);
  const auto moved = static_cast<double>(optimizer_steps);
  copy_from_host(field(record_, ops::kSteps, ops::kSteps), std::as_bytes(std::span(&moved, 1)));
  steps_ = steps;
  schedule_ahead_ = schedule_steps - steps;
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

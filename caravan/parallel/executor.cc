#include "caravan/parallel/executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <span>

#include "caravan/base/error.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/step_record.h"
#include "caravan/ops/trace.h"
#include "caravan/tensor/copy.h"

namespace caravan::parallel {

namespace {

using autograd::Value;

// What one micro-batch keeps on this stage between its forward and its last backward.
struct InFlight {
  autograd::Tape tape;
  autograd::Context pass;
  autograd::Slot input = autograd::kNoSlot;
  autograd::Slot output = autograd::kNoSlot;

  InFlight(ops::Context& ctx, const PlacedBatch& batch, const autograd::SavePolicy& policy)
      : tape(ctx), pass(ctx, batch.layout) {
    pass.tape = &tape;
    pass.checkpointing = policy;
  }
};

void check(const Schedule& schedule, const model::Llama& stage, const std::vector<PlacedBatch>& batches,
           const comm::Communicator& pipeline) {
  const std::vector<std::string> found = problems(schedule);
  if (!found.empty()) {
    throw ConfigError("pipeline schedule: " + found.front());
  }
  if (schedule.stages != static_cast<int>(schedule.steps.size())) {
    throw UnsupportedError(fmt::format("pipeline schedule: {} stages on {} ranks; one stage a rank is supported",
                                       schedule.stages, schedule.steps.size()));
  }
  if (schedule.stages != pipeline.size() || schedule.micro_batches != static_cast<int>(batches.size())) {
    throw ConfigError(fmt::format("pipeline schedule: made for {} stages and {} micro-batches, given {} ranks and {}",
                                  schedule.stages, schedule.micro_batches, pipeline.size(), batches.size()));
  }
  if (schedule.stages > stage.units()) {
    throw ConfigError(fmt::format("pipeline schedule: {} stages for a model of {} units; use fewer stages",
                                  schedule.stages, stage.units()));
  }
  for (int number = 0; number < schedule.stages; ++number) {
    if (schedule.rank_of_stage[static_cast<std::size_t>(number)] != number) {
      throw UnsupportedError(
          fmt::format("pipeline schedule: stage {} stands on rank {}; stage n on rank n is supported", number,
                      schedule.rank_of_stage[static_cast<std::size_t>(number)]));
    }
  }
  const autograd::UnitRange mine = stage_units(stage.units(), pipeline.rank(), schedule.stages);
  if (mine.first != stage.stage().first || mine.last != stage.stage().last) {
    throw ConfigError(fmt::format("pipeline schedule: rank {} should hold units [{}, {}), the model given has [{}, {})",
                                  pipeline.rank(), mine.first, mine.last, stage.stage().first, stage.stage().last));
  }
}

// One rank's walk through its steps.
class Runner {
 public:
  Runner(ops::Context& ctx, const model::Llama& stage, const Schedule& schedule,
         const std::vector<PlacedBatch>& batches, comm::Communicator& pipeline, const Tensor& loss_sum,
         const ExecutorOptions& options)
      : ctx_(ctx),
        stage_(stage),
        schedule_(schedule),
        batches_(batches),
        pipeline_(pipeline),
        loss_sum_(loss_sum),
        options_(options),
        in_flight_(batches.size()),
        forwards_left_(static_cast<int>(batches.size())),
        backwards_left_(static_cast<int>(batches.size())) {}

  void run() {
    for (const Step& step : schedule_.steps[static_cast<std::size_t>(pipeline_.rank())]) {
      switch (step.work) {
        case Work::kForward:
          forward(step);
          break;
        case Work::kBackward:
        case Work::kInputGradient:
          backward(step);
          break;
        case Work::kWeightGradient:
          weight_gradients(step);
          break;
      }
    }
  }

 private:
  bool first(const Step& step) const { return step.stage == 0; }
  bool last(const Step& step) const { return step.stage + 1 == schedule_.stages; }
  int rank_of(int stage) const { return schedule_.rank_of_stage[static_cast<std::size_t>(stage)]; }
  std::unique_ptr<InFlight>& held(const Step& step) { return in_flight_[static_cast<std::size_t>(step.micro_batch)]; }

  // [rows, hidden] of activations or their gradient.
  Tensor message(const Step& step) {
    return ctx_.allocate(
        dtype_, {batches_[static_cast<std::size_t>(step.micro_batch)].layout.rows, stage_.config().hidden_size});
  }

  void forward(const Step& step) {
    const ops::TraceRange range(ctx_, "forward", [&] { return fmt::format("micro-batch {}", step.micro_batch); });
    const PlacedBatch& batch = batches_[static_cast<std::size_t>(step.micro_batch)];
    held(step) = std::make_unique<InFlight>(ctx_, batch, options_.checkpointing);
    InFlight& flight = *held(step);
    Value x;
    if (first(step)) {
      x.tensor = batch.ids;
    } else {
      x.tensor = message(step);
      pipeline_.receive(x.tensor, rank_of(step.stage - 1));
      x.slot = flight.input = flight.tape.new_slot();
    }
    const bool completes = --forwards_left_ == 0;
    for (int unit = stage_.stage().first; unit < stage_.stage().last; ++unit) {
      {
        const ops::TraceRange range(ctx_, "unit forward", [&] { return fmt::format("unit {}", unit); });
        x = stage_.forward_unit(flight.pass, unit, x);
      }
      if (completes && options_.on_forward_done) {
        options_.on_forward_done(unit);
      }
    }
    if (!last(step)) {
      flight.output = x.slot;
      pipeline_.send(x.tensor, rank_of(step.stage + 1));
      return;
    }
    ops::add_sum(ctx_, loss_sum_, stage_.token_losses(flight.pass, x, batch.targets, options_.loss_scale).tensor);
  }

  void backward(const Step& step) {
    const ops::TraceRange range(ctx_, "backward", [&] { return fmt::format("micro-batch {}", step.micro_batch); });
    InFlight& flight = *held(step);
    if (!last(step)) {
      const Tensor gradient = message(step);
      pipeline_.receive(gradient, rank_of(step.stage + 1));
      flight.tape.seed(flight.output, gradient);
    }
    const bool whole = step.work == Work::kBackward;
    const bool completes = whole && --backwards_left_ == 0;
    for (int unit = stage_.stage().last - 1; unit >= stage_.stage().first; --unit) {
      const ops::TraceRange unit_range(ctx_, "unit backward", [&] { return fmt::format("unit {}", unit); });
      if (whole) {
        flight.tape.backward(flight.pass, {unit, unit + 1});
      } else {
        flight.tape.backward_inputs(flight.pass, {unit, unit + 1});
      }
      if (completes && options_.on_unit_done) {
        options_.on_unit_done(unit);
      }
    }
    if (!first(step)) {
      pipeline_.send(flight.tape.take(flight.input), rank_of(step.stage - 1));
    }
    if (whole) {
      held(step).reset();
    }
  }

  void weight_gradients(const Step& step) {
    const ops::TraceRange range(ctx_, "weight gradients",
                                [&] { return fmt::format("micro-batch {}", step.micro_batch); });
    InFlight& flight = *held(step);
    const bool completes = --backwards_left_ == 0;
    for (int unit = stage_.stage().last - 1; unit >= stage_.stage().first; --unit) {
      flight.tape.backward_weights(flight.pass, {unit, unit + 1});
      if (completes && options_.on_unit_done) {
        options_.on_unit_done(unit);
      }
    }
    held(step).reset();
  }

  ops::Context& ctx_;
  const model::Llama& stage_;
  const Schedule& schedule_;
  const std::vector<PlacedBatch>& batches_;
  comm::Communicator& pipeline_;
  Tensor loss_sum_;
  const ExecutorOptions& options_;
  std::vector<std::unique_ptr<InFlight>> in_flight_;
  int forwards_left_;
  int backwards_left_;
  DType dtype_ = stage_.dtype();
};

}  // namespace

autograd::UnitRange stage_units(int units, int stage, int stages) {
  const int each = units / stages;
  const int rest = units % stages;
  const int first = stage * each + std::min(stage, rest);
  return {first, first + each + (stage < rest ? 1 : 0)};
}

std::vector<PlacedBatch> place(ops::Context& ctx, const std::vector<MicroBatch>& batches) {
  std::vector<PlacedBatch> result;
  for (const MicroBatch& batch : batches) {
    result.push_back({batch.layout, to_device(*ctx.allocator, batch.ids), to_device(*ctx.allocator, batch.targets)});
  }
  return result;
}

void run_schedule(ops::Context& ctx, const model::Llama& stage, const Schedule& schedule,
                  const std::vector<PlacedBatch>& batches, comm::Communicator& pipeline, const Tensor& loss_sum,
                  const ExecutorOptions& options) {
  check(schedule, stage, batches, pipeline);
  Runner(ctx, stage, schedule, batches, pipeline, loss_sum, options).run();
}

void sum_tied_gradients(ops::Context& ctx, autograd::WeightStore& store, const model::LlamaConfig& config,
                        comm::Communicator& pipeline) {
  const int last = pipeline.size() - 1;
  if (!config.tie_word_embeddings || last == 0 || (pipeline.rank() != 0 && pipeline.rank() != last)) {
    return;
  }
  const bool head = pipeline.rank() == last;
  const Tensor& gradient = store.at(head ? "lm_head.weight" : "model.embed_tokens.weight").gradient;
  if (!gradient.defined()) {
    return;  // frozen, on both stages
  }
  const Tensor other = ctx.allocate(gradient.dtype(), gradient.shape(), Segment::kWorkspace);
  pipeline.send(gradient, head ? 0 : last);
  pipeline.receive(other, head ? 0 : last);
  ops::add(ctx, gradient, gradient, other);
}

}  // namespace caravan::parallel

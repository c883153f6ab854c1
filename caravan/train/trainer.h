// The training step: what torchtitan's train_step does, over the tape and the schedule of accumulated micro-batches.
//
//   count the valid targets of the whole global batch; forward and backward with 1 over that count; sum gradients over
//   ranks; norm, clipping; AdamW; the learning rate of the step before it was counted.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/autograd/save_policy.h"
#include "caravan/checkpoint/training_checkpoint.h"
#include "caravan/comm/communicator.h"
#include "caravan/layout/micro_batch.h"
#include "caravan/model_io/load.h"
#include "caravan/ops/graph.h"
#include "caravan/optim/loss_scaler.h"
#include "caravan/optim/lr_schedule.h"
#include "caravan/optim/optimizer.h"
#include "caravan/parallel/executor.h"
#include "caravan/tensor/copy.h"

namespace caravan::train {

struct TrainerOptions {
  optim::AdamWConfig optimizer;
  optim::LrSchedule schedule;
  double max_norm = 1.0;  // 0: no clipping
  autograd::SavePolicy checkpointing;
  bool skip_non_finite = false;   // a step whose loss or norm is no number leaves everything as it was
  optim::LossScaler loss_scaler;  // of models that compute in f16
};

struct StepResult {
  double loss = 0.0;         // mean over the global batch's valid targets, nats; 0 without any
  double grad_norm = 0.0;    // over all gradients, before clipping
  double lr = 0.0;           // of this step
  std::int64_t targets = 0;  // valid ones, over all ranks
  std::int64_t tokens = 0;   // ids that are no padding, over all ranks
  bool applied = true;       // false: skipped, since loss or norm was no number
  double loss_scale = 1.0;   // that the step used
};

struct Evaluation {
  double loss_sum = 0.0;  // nats, over all targets
  std::int64_t targets = 0;
};

// A model in training with its optimizer.  One object a rank; ranks call the same things in the same order.
class Trainer {
 public:
  // `model` was loaded or created for training.  `ranks` share the data and must outlive the trainer.
  Trainer(ops::Context& ctx, model_io::LoadedModel model, const TrainerOptions& options, comm::Communicator& ranks);
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  // One step over this rank's micro-batches.  On the meta device nothing is computed and the result means nothing.
  // A model in f16 has its gradients scaled: where they overflow though the loss is finite, the step is skipped and the
  // scale halved.
  // Throws NonFiniteError when loss or norm is no number and such steps are not skipped, or the scale became useless:
  // nothing was changed by then.
  StepResult step(const std::vector<MicroBatch>& batches);

  // step() in two halves.  The first asks the device for all of a step and, on a GPU, waits for nothing; the second
  // waits for the oldest step begun and tells what came of it.  Between them others may be begun: the device then has
  // the next step to do while the host hears of the last.  Where finish_step() throws, the steps begun after that one
  // have changed nothing either, and are forgotten.
  // begin_step() throws Error where may_begin() is false.
  void begin_step(const std::vector<MicroBatch>& batches);
  StepResult finish_step();
  // Begun and not finished.
  std::int64_t under_way() const { return static_cast<std::int64_t>(begun_.size()); }
  // Whether a step may be begun now: of a model in f16 one at a time, since each sets the next one's scale.
  bool may_begin() const { return begun_.empty() || !scaler_; }

  // Sums the losses of this rank's micro-batches without changing anything.
  Evaluation evaluate(const std::vector<MicroBatch>& batches);

  // Steps done so far, skipped ones included.
  std::int64_t steps() const { return steps_; }
  // The same, counted from where the learning rate's schedule began: another number only where one of the two was begun
  // afresh when the other was resumed.
  std::int64_t schedule_steps() const { return steps_ + schedule_ahead_; }
  std::int64_t tokens_seen() const { return tokens_seen_; }

  // Everything that a checkpoint keeps of the model and the optimizer, by Hugging Face's parameter names:
  //   NAME                             the master, f32
  //   optimizer.state.NAME.exp_avg     first moment (torchtitan's key)
  //   optimizer.state.NAME.exp_avg_sq  second moment
  // The tensors are windows onto the trainer's own memory.
  std::vector<checkpoint::NamedTensor> tensors() const;
  std::vector<checkpoint::NamedTensor> model_tensors() const;

  // The masters, and where asked the moments, were written through tensors(): compute views follow.
  // `schedule_steps`: where the learning rate's schedule stands.
  void restored(std::int64_t steps, std::int64_t optimizer_steps, std::int64_t tokens_seen,
                std::int64_t schedule_steps);

  // Of a model in f16; nothing otherwise.  A resumed run sets what the checkpoint kept.
  const std::optional<optim::LossScaler>& loss_scaler() const { return scaler_; }
  void set_loss_scale(double scale, std::int64_t good_steps);

  std::int64_t optimizer_steps() const { return optimizer_.steps(); }
  const model_io::LoadedModel& model() const { return model_; }
  ops::Context& context() { return ctx_; }

 private:
  // A step asked for, as far as the host knows it.
  struct Begun {
    std::int64_t number = 0;  // from 1
    StepResult result;
  };

  // What a recorded step was recorded for: another that has the same repeats it.
  struct Shape {
    std::vector<SequenceLayout> layouts;
    double loss_factor = 0.0;
    double loss_scale = 0.0;

    bool operator==(const Shape&) const = default;
  };
  // A step as a graph (ops/graph.h), which reads its ids and targets from `batches`.
  struct Recorded {
    Recorded(Shape of, std::vector<parallel::PlacedBatch> placed) : shape(std::move(of)), batches(std::move(placed)) {}
    Shape shape;
    std::vector<parallel::PlacedBatch> batches;
    std::unique_ptr<ops::Graph> graph;
  };

  // Asks for a step: the second of a shape in a row is recorded, those after it repeat the recording.
  void ask(const std::vector<MicroBatch>& batches, const ops::StepRule& rule);
  void repeat(const Shape& shape, const std::vector<MicroBatch>& batches, const ops::StepRule& rule);
  bool may_record() const;
  // All that the device does in a step, its sums in record_.
  void run(ops::Context& ctx, const std::vector<parallel::PlacedBatch>& batches, const ops::StepRule& rule);
  // Of a step without finite loss or norm: throws, unless it is to be skipped.
  void refuse_or_skip(const Begun& begun);

  ops::Context& ctx_;
  model_io::LoadedModel model_;
  TrainerOptions options_;
  comm::Communicator& ranks_;
  std::unique_ptr<comm::Communicator> alone_;
  optim::Optimizer optimizer_;
  Tensor record_;  // [ops::kStepFields] f64: of the step that the device is at
  Mailbox<double> records_;
  std::deque<Begun> begun_;
  Shape last_shape_;
  std::unique_ptr<Recorded> recorded_;  // of the newest shape that came twice in a row
  std::optional<optim::LossScaler> scaler_;
  std::int64_t steps_ = 0;
  std::int64_t schedule_ahead_ = 0;  // of steps_
  std::int64_t tokens_seen_ = 0;
};

// Loss or gradient norm is NaN or infinite.
class NonFiniteError : public Error {
  using Error::Error;
};

// Multiplications and additions of one training step for each token (forward and backward, recomputation not counted):
// 6 for every weight of a product, and 12 heads head_dim (seq_len / 2) a layer for attention over what a causal row
// sees (torchtitan counts the masked half too).
double flops_per_token(const model::LlamaConfig& config, std::int64_t seq_len);

}  // namespace caravan::train

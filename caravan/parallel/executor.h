// Runs a pipeline schedule on one rank: forwards, backwards and the messages between stages that follow from them.
//
// The executor knows units and tapes, not what a unit computes.  Gradient accumulation is the schedule of one stage.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "caravan/autograd/save_policy.h"
#include "caravan/comm/communicator.h"
#include "caravan/layout/micro_batch.h"
#include "caravan/model/llama.h"
#include "caravan/parallel/schedule.h"

namespace caravan::parallel {

// A micro-batch where the model is.
struct PlacedBatch {
  SequenceLayout layout;
  Tensor ids;      // [rows] i32
  Tensor targets;  // [rows] i32
};

// Takes memory of Segment::kActivations.
std::vector<PlacedBatch> place(ops::Context& ctx, const std::vector<MicroBatch>& batches);

struct ExecutorOptions {
  double loss_scale = 1.0;  // 1 over the valid targets of the whole global batch
  autograd::SavePolicy checkpointing;
  std::function<void(int unit)> on_forward_done;  // after the last forward through a unit (its head's loss comes after)
  std::function<void(int unit)> on_unit_done;  // after the last backward through a unit: where data parallelism reduces
};

// Units [first, last) of stage `stage` when `units` of them are shared out as evenly as can be, earlier stages taking
// the rest.
autograd::UnitRange stage_units(int units, int stage, int stages);

// Does this rank's steps of the schedule on its stage (schedules with one stage a rank) and adds to the gradients of
// the stage's parameters.  `pipeline` has a rank for every stage.  Every rank has all micro-batches; only the first
// stage reads ids, only the last targets.  loss_sum[0], f64, grows by the sum of the negative log likelihoods on the last
// stage's rank.  Nothing waits for the device.
// Throws ConfigError when the schedule has problems() or does not fit batches, stage or communicator, UnsupportedError
// for several stages on a rank, and what ops and messages throw.
void run_schedule(ops::Context& ctx, const model::Llama& stage, const Schedule& schedule,
                  const std::vector<PlacedBatch>& batches, comm::Communicator& pipeline, const Tensor& loss_sum,
                  const ExecutorOptions& options);

// Tied embeddings on two stages: sums the gradients of the embedding (first rank) and the head (last rank) on both.  A
// no-op with one stage.  All ranks of the pipeline call it.
void sum_tied_gradients(ops::Context& ctx, autograd::WeightStore& store, const model::LlamaConfig& config,
                        comm::Communicator& pipeline);

}  // namespace caravan::parallel

// The numbers of one training step, on the device that computes it: what is summed up, what follows from it, and whether
// the optimizer may move.  The host reads them when it likes, so that the device never waits for it.
#pragma once

#include <cstdint>

#include "caravan/ops/context.h"

namespace caravan::ops {

// Places in a step's record, a tensor [kStepFields] of f64.
enum StepField : std::int64_t {
  // The host writes:
  kLr,          // of the step
  kHasTargets,  // 0: there is nothing to learn, the step moves nothing
  // Ops add to:
  kLossSum,  // negative log likelihoods over the whole global batch, nats
  kSquares,  // of all gradients
  // decide_step() writes:
  kLoss,            // mean over the valid targets
  kGradNorm,        // without the loss's scale, before clipping
  kApplied,         // 1: the optimizer moves
  kGradientScale,   // what gradients are multiplied by: the clipping coefficient over the loss's scale
  kCorrection1,     // 1 - beta1^steps
  kRootCorrection,  // sqrt(1 - beta2^steps)
  // decide_step() carries on from step to step:
  kSteps,   // that the optimizer moved, this one included
  kHalted,  // 1: a step was not finite, and nothing moves until the host writes 0
  kStepFields
};

// What decide_step() is told by the host.
struct StepRule {
  double loss_factor = 1.0;  // 1 over the valid targets of the global batch
  double loss_scale = 1.0;   // that the gradients are larger by (optim/loss_scaler.h)
  double max_norm = 0.0;     // 0: no clipping
  double beta1 = 0.9;        // AdamW's
  double beta2 = 0.95;
  bool halts = true;  // after a step that is not finite no other moves anything: the host is to hear of it first
};

// What gradients are multiplied by so that their norm is at most `max_norm` (0: never): torch's clip_grad_norm_,
//   min(1, max_norm / (norm + 1e-6)).
inline double clip_coefficient(double norm, double max_norm) {
  constexpr double kTorchEpsilon = 1e-6;
  const double coefficient = max_norm / (norm + kTorchEpsilon);
  // Written so that a norm that is no number stays visible.
  return max_norm <= 0.0 || coefficient > 1.0 ? 1.0 : coefficient;
}

// From the sums of `record`:
//   loss = loss_factor loss_sum;   norm = sqrt(squares) / loss_scale
//   applied = has_targets and not halted and loss and norm are finite;   steps += applied
// and the factors that AdamW takes from there.  record: [kStepFields] f64, contiguous.  Throws ShapeError.
void decide_step(Context& ctx, const Tensor& record, const StepRule& rule);

// sum[0] += sum of x, in f64: the same bits for every thread count.  sum: [1] f64.  x: any compute float dtype, contiguous.
// Throws ShapeError.
void add_sum(Context& ctx, const Tensor& sum, const Tensor& x);

}  // namespace caravan::ops

// What a training step's sums decide, and the sum of its losses.
#include "caravan/ops/step_record.h"

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

__global__ void decide_step_kernel(double* record, StepRule rule) {
  const double loss = record[kLossSum] * rule.loss_factor;
  const double norm = sqrt(record[kSquares]) / rule.loss_scale;
  // What is no number minus itself is not zero.
  const bool finite = loss - loss == 0 && norm - norm == 0;
  if (!finite && rule.halts) {
    record[kHalted] = 1;
  }
  const bool applied = finite && record[kHalted] == 0 && record[kHasTargets] != 0;
  const double steps = record[kSteps] + (applied ? 1 : 0);
  constexpr double kTorchEpsilon = 1e-6;
  const double coefficient = rule.max_norm / (norm + kTorchEpsilon);
  record[kLoss] = loss;
  record[kGradNorm] = norm;
  record[kApplied] = applied ? 1 : 0;
  record[kSteps] = steps;
  record[kGradientScale] = (rule.max_norm <= 0 || coefficient > 1 ? 1 : coefficient) / rule.loss_scale;
  record[kCorrection1] = 1 - pow(rule.beta1, steps);
  record[kRootCorrection] = sqrt(1 - pow(rule.beta2, steps));
}

void run_decide_step(Context& /*ctx*/, const DecideStepArgs& args, std::byte* /*workspace*/) {
  launch("decide_step", decide_step_kernel, 1, 1, 0, elements<double>(args.record), args.rule);
}

constexpr unsigned kThreads = 1024;

// One block: the losses of a micro-batch are few, and one order of them gives the same bits every time.
template <typename T>
__global__ void add_sum_kernel(double* sum, const T* x, std::int64_t count) {
  double mine = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    mine += static_cast<double>(load(x[i]));
  }
  mine = block_sum(mine);
  if (threadIdx.x == 0) {
    *sum += mine;
  }
}

void run_add_sum(Context& /*ctx*/, const AddSumArgs& args, std::byte* /*workspace*/) {
  with_element(args.x.dtype(), [&]<typename T>() {
    launch("add_sum", add_sum_kernel<T>, 1, kThreads, 0, elements<double>(args.sum), elements<const T>(args.x),
           args.x.elements());
  });
}

constexpr Implementation<DecideStepArgs> kDecideStep[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_decide_step},
};
constexpr Implementation<AddSumArgs> kAddSum[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_add_sum},
};

}  // namespace

ImplementationList<DecideStepArgs> decide_step_list() {
  return kDecideStep;
}

ImplementationList<AddSumArgs> add_sum_list() {
  return kAddSum;
}

}  // namespace caravan::ops::cuda

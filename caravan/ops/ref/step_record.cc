// What a training step's sums decide.
#include "caravan/ops/step_record.h"

#include <cmath>

#include "caravan/ops/args.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

void run_decide_step(Context&, const DecideStepArgs& args, std::byte*) {
  double* record = elements<double>(args.record);
  const StepRule& rule = args.rule;
  record[kLoss] = record[kLossSum] * rule.loss_factor;
  record[kGradNorm] = std::sqrt(record[kSquares]) / rule.loss_scale;
  const bool finite = std::isfinite(record[kLoss]) && std::isfinite(record[kGradNorm]);
  if (!finite && rule.halts) {
    record[kHalted] = 1;
  }
  const bool applied = finite && record[kHalted] == 0 && record[kHasTargets] != 0;
  record[kApplied] = applied ? 1 : 0;
  record[kSteps] += record[kApplied];
  record[kGradientScale] = clip_coefficient(record[kGradNorm], rule.max_norm) / rule.loss_scale;
  record[kCorrection1] = 1 - std::pow(rule.beta1, record[kSteps]);
  record[kRootCorrection] = std::sqrt(1 - std::pow(rule.beta2, record[kSteps]));
}

void run_add_sum(Context&, const AddSumArgs& args, std::byte*) {
  with_float_type(args.x.dtype(), [&]<typename T>() {
    const T* x = elements<const T>(args.x);
    double sum = 0;
    for (std::int64_t i = 0; i < args.x.elements(); ++i) {
      sum += load(x[i]);
    }
    *elements<double>(args.sum) += sum;
  });
}

constexpr Implementation<DecideStepArgs> kDecideStepList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_decide_step}};
constexpr Implementation<AddSumArgs> kAddSumList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_add_sum}};

}  // namespace

ImplementationList<DecideStepArgs> decide_step_list() {
  return kDecideStepList;
}
ImplementationList<AddSumArgs> add_sum_list() {
  return kAddSumList;
}

}  // namespace caravan::ops::ref

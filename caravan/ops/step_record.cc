#include "caravan/ops/step_record.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

void decide_step(Context& ctx, const Tensor& record, const StepRule& rule) {
  const ArgumentCheck check(ctx, "decide_step");
  check.whole("record", record, DType::kF64, {kStepFields});
  dispatch_all<DecideStepArgs>(ctx, "decide_step", /*cpu_list=*/{}, cuda::decide_step_list(), ref::decide_step_list(),
                               {record, rule});
}

void add_sum(Context& ctx, const Tensor& sum, const Tensor& x) {
  const ArgumentCheck check(ctx, "add_sum");
  check.whole("sum", sum, DType::kF64, {1});
  check.floats("x", x);
  check.whole("x", x, x.dtype(), x.shape());
  check.disjoint("sum", sum, "x", x);
  if (x.elements() == 0) {
    return;
  }
  dispatch_all<AddSumArgs>(ctx, "add_sum", /*cpu_list=*/{}, cuda::add_sum_list(), ref::add_sum_list(), {sum, x});
}

}  // namespace caravan::ops

#include "caravan/ops/adamw.h"

#include <fmt/format.h>

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {
namespace {

ArgumentCheck checked(Context& ctx, const Tensor& master, const Tensor& m, const Tensor& v, const Tensor& gradient) {
  const ArgumentCheck check(ctx, "adamw");
  check.floats("master", master);
  check.require(size_of(master.dtype()) >= 4, "master", "f32 or f64", to_string(master));
  check.whole("master", master, master.dtype(), master.shape());
  check.whole("m", m, master.dtype(), master.shape());
  check.whole("v", v, master.dtype(), master.shape());
  check.whole("gradient", gradient, master.dtype(), master.shape());
  check.disjoint("master", master, "m", m);
  check.disjoint("master", master, "v", v);
  check.disjoint("master", master, "gradient", gradient);
  check.disjoint("m", m, "v", v);
  check.disjoint("m", m, "gradient", gradient);
  check.disjoint("v", v, "gradient", gradient);
  return check;
}

void run_adamw(Context& ctx, const AdamWArgs& args) {
  if (args.master.elements() > 0) {
    dispatch_all<AdamWArgs>(ctx, "adamw", cpu::adamw_list(), cuda::adamw_list(), ref::adamw_list(), args);
  }
}

}  // namespace

void adamw(Context& ctx, const Tensor& master, const Tensor& m, const Tensor& v, const Tensor& gradient,
           const AdamW& settings) {
  const ArgumentCheck check = checked(ctx, master, m, v, gradient);
  check.require(settings.step >= 1, "settings", "a step of at least 1", fmt::format("step {}", settings.step));
  run_adamw(ctx, {master, m, v, gradient, settings, {}});
}

void adamw(Context& ctx, const Tensor& master, const Tensor& m, const Tensor& v, const Tensor& gradient,
           const AdamW& settings, const Tensor& record) {
  const ArgumentCheck check = checked(ctx, master, m, v, gradient);
  check.whole("record", record, DType::kF64, {kStepFields});
  run_adamw(ctx, {master, m, v, gradient, settings, record});
}

void add_sum_of_squares(Context& ctx, const Tensor& sum, const Tensor& x) {
  const ArgumentCheck check(ctx, "add_sum_of_squares");
  check.whole("sum", sum, DType::kF64, {1});
  check.floats("x", x);
  check.whole("x", x, x.dtype(), x.shape());
  check.disjoint("sum", sum, "x", x);
  if (x.elements() == 0) {
    return;
  }
  dispatch_all<SumOfSquaresArgs>(ctx, "add_sum_of_squares", cpu::sum_of_squares_list(), cuda::sum_of_squares_list(),
                                 ref::sum_of_squares_list(), {sum, x});
}

}  // namespace caravan::ops

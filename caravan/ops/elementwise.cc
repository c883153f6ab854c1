#include "caravan/ops/elementwise.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

void add(Context& ctx, const Tensor& y, const Tensor& a, const Tensor& b) {
  const ArgumentCheck check(ctx, "add");
  check.floats("y", y);
  check.window("a", a, y.dtype(), y.shape());
  check.window("b", b, y.dtype(), y.shape());
  check.same_or_disjoint("y", y, "a", a);
  check.same_or_disjoint("y", y, "b", b);
  if (y.elements() == 0) {
    return;
  }
  dispatch_all<AddArgs>(ctx, "add", cpu::add_list(), cuda::add_list(), ref::add_list(), {y, a, b});
}

void convert(Context& ctx, const Tensor& y, const Tensor& x) {
  const ArgumentCheck check(ctx, "convert");
  check.floats("y", y);
  check.floats("x", x);
  check.window("x", x, x.dtype(), y.shape());
  check.disjoint("y", y, "x", x);
  if (y.elements() == 0) {
    return;
  }
  dispatch_all<ConvertArgs>(ctx, "convert", cpu::convert_list(), cuda::convert_list(), ref::convert_list(), {y, x});
}

void zero(Context& ctx, const Tensor& y) {
  const ArgumentCheck check(ctx, "zero");
  check.window("y", y, y.dtype(), y.shape());
  if (y.elements() == 0) {
    return;
  }
  dispatch_all<ZeroArgs>(ctx, "zero", cpu::zero_list(), cuda::zero_list(), ref::zero_list(), {y});
}

void zero_when_storing(Context& ctx, const Tensor& gradient, Accumulate accumulate) {
  if (accumulate == Accumulate::kStore) {
    zero(ctx, gradient);
  }
}

}  // namespace caravan::ops

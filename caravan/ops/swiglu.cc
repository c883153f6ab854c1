#include "caravan/ops/swiglu.h"

#include <fmt/format.h>

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

void swiglu(Context& ctx, const Tensor& y, const Tensor& gate_up) {
  const ArgumentCheck check(ctx, "swiglu");
  check.float_matrix("y", y);
  check.whole("y", y, y.dtype(), y.shape());
  check.window("gate_up", gate_up, y.dtype(), {y.rows(), 2 * y.columns()});
  check.disjoint("y", y, "gate_up", gate_up);
  if (y.elements() == 0) {
    return;
  }
  dispatch_all<SwigluArgs>(ctx, "swiglu", cpu::swiglu_list(), cuda::swiglu_list(), ref::swiglu_list(), {y, gate_up});
}

void swiglu_grad(Context& ctx, const Tensor& d_gate_up, const Tensor& dy, const Tensor& gate_up) {
  const ArgumentCheck check(ctx, "swiglu_grad");
  check.float_matrix("dy", dy);
  check.whole("dy", dy, dy.dtype(), dy.shape());
  check.window("gate_up", gate_up, dy.dtype(), {dy.rows(), 2 * dy.columns()});
  check.window("d_gate_up", d_gate_up, dy.dtype(), gate_up.shape());
  check.disjoint("d_gate_up", d_gate_up, "dy", dy);
  check.same_or_disjoint("d_gate_up", d_gate_up, "gate_up", gate_up);
  if (dy.elements() == 0) {
    return;
  }
  dispatch_all<SwigluGradArgs>(ctx, "swiglu_grad", cpu::swiglu_grad_list(), cuda::swiglu_grad_list(),
                               ref::swiglu_grad_list(), {d_gate_up, dy, gate_up});
}

}  // namespace caravan::ops

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
  dispatch_all<SwigluArgs>(ctx, "swiglu", cpu::swiglu_list(), ref::swiglu_list(), {y, gate_up});
}

}  // namespace caravan::ops

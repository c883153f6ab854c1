#include "caravan/ops/linear.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

void linear(Context& ctx, const Tensor& y, const Tensor& x, const Weight& w, const Tensor& bias,
            const Tensor& residual) {
  const ArgumentCheck check(ctx, "linear");
  check.float_matrix("x", x);
  check.float_matrix("w", w.plain());
  const std::int64_t tokens = x.rows();
  const std::int64_t in = x.columns();
  const std::int64_t out = w.plain().rows();
  check.require(in > 0, "x", "at least one column", to_string(x));
  check.whole("w", w.plain(), x.dtype(), {out, in});
  const bool half = x.dtype() == DType::kBF16 || x.dtype() == DType::kF16;
  const DType y_dtype = half && y.defined() && y.dtype() == DType::kF32 ? DType::kF32 : x.dtype();
  check.window("y", y, y_dtype, {tokens, out});
  check.disjoint("y", y, "x", x);
  check.disjoint("y", y, "w", w.plain());
  if (bias.defined()) {
    check.whole("bias", bias, x.dtype(), {out});
    check.disjoint("y", y, "bias", bias);
  }
  if (residual.defined()) {
    check.window("residual", residual, y_dtype, {tokens, out});
    check.same_or_disjoint("residual", residual, "y", y);
  }
  if (y.elements() == 0) {
    return;
  }
  dispatch_all<LinearArgs>(ctx, "linear", cpu::linear_list(), ref::linear_list(), {y, x, w, bias, residual});
}

}  // namespace caravan::ops

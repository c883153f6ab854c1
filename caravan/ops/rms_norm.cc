#include "caravan/ops/rms_norm.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

void rms_norm(Context& ctx, const Tensor& y, const Tensor& rstd, const Tensor& x, const Tensor& w, double eps,
              NormRounding rounding) {
  const ArgumentCheck check(ctx, "rms_norm");
  check.float_matrix("x", x);
  const std::int64_t tokens = x.rows();
  const std::int64_t features = x.columns();
  check.require(features > 0, "x", "at least one column", to_string(x));
  check.window("y", y, x.dtype(), {tokens, features});
  check.whole("w", w, x.dtype(), {features});
  check.same_or_disjoint("y", y, "x", x);
  check.disjoint("y", y, "w", w);
  if (rstd.defined()) {
    check.whole("rstd", rstd, statistics_dtype(x.dtype()), {tokens});
    check.disjoint("rstd", rstd, "x", x);
    check.disjoint("rstd", rstd, "y", y);
  }
  if (tokens == 0) {
    return;
  }
  dispatch_all<RmsNormArgs>(ctx, "rms_norm", cpu::rms_norm_list(), cuda::rms_norm_list(), ref::rms_norm_list(),
                            {y, rstd, x, w, eps, rounding});
}

void rms_norm_input_grad(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& rstd,
                         const Tensor& w, Accumulate accumulate) {
  const ArgumentCheck check(ctx, "rms_norm_input_grad");
  check.float_matrix("x", x);
  check.require(x.columns() > 0, "x", "at least one column", to_string(x));
  check.window("dy", dy, x.dtype(), x.shape());
  check.window("dx", dx, x.dtype(), x.shape());
  check.whole("rstd", rstd, statistics_dtype(x.dtype()), {x.rows()});
  check.whole("w", w, x.dtype(), {x.columns()});
  if (accumulate == Accumulate::kStore) {
    check.same_or_disjoint("dx", dx, "dy", dy);
  } else {
    check.disjoint("dx", dx, "dy", dy);
  }
  check.disjoint("dx", dx, "x", x);
  check.disjoint("dx", dx, "rstd", rstd);
  check.disjoint("dx", dx, "w", w);
  if (x.rows() == 0) {
    return;
  }
  dispatch_all<RmsNormInputGradArgs>(ctx, "rms_norm_input_grad", cpu::rms_norm_input_grad_list(),
                                     cuda::rms_norm_input_grad_list(), ref::rms_norm_input_grad_list(),
                                     {dx, dy, x, rstd, w, accumulate});
}

void rms_norm_weight_grad(Context& ctx, const Tensor& dw, const Tensor& dy, const Tensor& x, const Tensor& rstd,
                          NormRounding rounding, Accumulate accumulate) {
  const ArgumentCheck check(ctx, "rms_norm_weight_grad");
  check.float_matrix("x", x);
  check.window("dy", dy, x.dtype(), x.shape());
  check.whole("rstd", rstd, statistics_dtype(x.dtype()), {x.rows()});
  check.whole("dw", dw, statistics_dtype(x.dtype()), {x.columns()});
  check.disjoint("dw", dw, "dy", dy);
  check.disjoint("dw", dw, "x", x);
  check.disjoint("dw", dw, "rstd", rstd);
  if (x.elements() == 0) {
    zero_when_storing(ctx, dw, accumulate);
    return;
  }
  dispatch_all<RmsNormWeightGradArgs>(ctx, "rms_norm_weight_grad", cpu::rms_norm_weight_grad_list(),
                                      cuda::rms_norm_weight_grad_list(), ref::rms_norm_weight_grad_list(),
                                      {dw, dy, x, rstd, rounding, accumulate});
}

}  // namespace caravan::ops

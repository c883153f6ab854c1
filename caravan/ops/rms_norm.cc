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
  dispatch_all<RmsNormArgs>(ctx, "rms_norm", cpu::rms_norm_list(), ref::rms_norm_list(),
                            {y, rstd, x, w, eps, rounding});
}

}  // namespace caravan::ops

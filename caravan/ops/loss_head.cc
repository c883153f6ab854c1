#include "caravan/ops/loss_head.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

void loss_head(Context& ctx, const Tensor& token_nll, const Tensor& hidden, const Weight& w, const Tensor& targets) {
  const ArgumentCheck check(ctx, "loss_head");
  check.float_matrix("hidden", hidden);
  const std::int64_t tokens = hidden.rows();
  const std::int64_t features = hidden.columns();
  check.require(features > 0, "hidden", "at least one column", to_string(hidden));
  check.float_matrix("w", w.plain());
  check.require(w.plain().rows() > 0, "w", "at least one row", to_string(w.plain()));
  check.whole("w", w.plain(), hidden.dtype(), {w.plain().rows(), features});
  check.whole("token_nll", token_nll, statistics_dtype(hidden.dtype()), {tokens});
  check.whole("targets", targets, DType::kI32, {tokens});
  check.disjoint("token_nll", token_nll, "hidden", hidden);
  check.disjoint("token_nll", token_nll, "targets", targets);
  if (tokens == 0) {
    return;
  }
  dispatch_all<LossHeadArgs>(ctx, "loss_head", cpu::loss_head_list(), ref::loss_head_list(),
                             {token_nll, hidden, w, targets});
}

}  // namespace caravan::ops

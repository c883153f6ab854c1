#include "caravan/ops/loss_head.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

namespace {

void check_inputs(const ArgumentCheck& check, const Tensor& token_nll, const Tensor& hidden, const Weight& w,
                  const Tensor& targets) {
  check.float_matrix("hidden", hidden);
  const std::int64_t tokens = hidden.rows();
  const std::int64_t features = hidden.columns();
  check.require(features > 0, "hidden", "at least one column", to_string(hidden));
  check.weight_matrix("w", w);
  check.require(w.shape()[0] > 0, "w", "at least one row", to_string(w.shape()));
  check.weight("w", w, hidden.dtype(), {w.shape()[0], features});
  check.whole("token_nll", token_nll, statistics_dtype(hidden.dtype()), {tokens});
  check.whole("targets", targets, DType::kI32, {tokens});
  check.disjoint("token_nll", token_nll, "hidden", hidden);
  check.disjoint("token_nll", token_nll, "targets", targets);
}

}  // namespace

void loss_head(Context& ctx, const Tensor& token_nll, const Tensor& hidden, const Weight& w, const Tensor& targets) {
  const ArgumentCheck check(ctx, "loss_head");
  check_inputs(check, token_nll, hidden, w, targets);
  if (hidden.rows() == 0) {
    return;
  }
  dispatch_all<LossHeadArgs>(ctx, "loss_head", cpu::loss_head_list(), cuda::loss_head_list(), ref::loss_head_list(),
                             {token_nll, hidden, w.with_plain(ctx), targets});
}

void loss_head_with_grad(Context& ctx, const Tensor& token_nll, const Tensor& d_hidden, const Tensor& dw,
                         const Tensor& hidden, const Weight& w, const Tensor& targets, double scale) {
  const ArgumentCheck check(ctx, "loss_head_with_grad");
  check.trainable("w", w);
  check_inputs(check, token_nll, hidden, w, targets);
  check.whole("d_hidden", d_hidden, hidden.dtype(), hidden.shape());
  check.disjoint("d_hidden", d_hidden, "hidden", hidden);
  check.disjoint("d_hidden", d_hidden, "w", w.source());
  check.disjoint("d_hidden", d_hidden, "targets", targets);
  check.disjoint("d_hidden", d_hidden, "token_nll", token_nll);
  if (dw.defined()) {
    check.whole("dw", dw, statistics_dtype(hidden.dtype()), w.shape());
    check.disjoint("dw", dw, "hidden", hidden);
    check.disjoint("dw", dw, "w", w.source());
    check.disjoint("dw", dw, "targets", targets);
    check.disjoint("dw", dw, "token_nll", token_nll);
    check.disjoint("dw", dw, "d_hidden", d_hidden);
  }
  if (hidden.rows() == 0) {
    return;
  }
  dispatch_all<LossHeadGradArgs>(ctx, "loss_head_with_grad", cpu::loss_head_grad_list(), cuda::loss_head_grad_list(),
                                 ref::loss_head_grad_list(),
                                 {token_nll, d_hidden, dw, hidden, w.with_plain(ctx), targets, scale});
}

}  // namespace caravan::ops

#include "caravan/ops/linear.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

namespace {

// The reference reads elements as they stand, and blocks row by row; the processor's backend packs what it reads.
Weight read_by(Context& ctx, const Weight& w) {
  return ctx.backend == Backend::kRef && !w.is_in_blocks() ? w.with_plain(ctx) : w;
}

}  // namespace

void linear(Context& ctx, const Tensor& y, const Tensor& x, const Weight& w, const Tensor& bias,
            const Tensor& residual) {
  const ArgumentCheck check(ctx, "linear");
  check.float_matrix("x", x);
  check.weight_matrix("w", w);
  const std::int64_t tokens = x.rows();
  const std::int64_t in = x.columns();
  const std::int64_t out = w.defined() ? w.shape()[0] : 0;
  check.require(in > 0, "x", "at least one column", to_string(x));
  check.weight("w", w, x.dtype(), {out, in});
  const bool half = x.dtype() == DType::kBF16 || x.dtype() == DType::kF16;
  const DType y_dtype = half && y.defined() && y.dtype() == DType::kF32 ? DType::kF32 : x.dtype();
  check.window("y", y, y_dtype, {tokens, out});
  check.disjoint("y", y, "x", x);
  check.disjoint("y", y, "w", w.source());
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
  dispatch_all<LinearArgs>(ctx, "linear", cpu::linear_list(), cuda::linear_list(), ref::linear_list(),
                           {y, x, read_by(ctx, w), bias, residual});
}

void linear_input_grad(Context& ctx, const Tensor& dx, const Tensor& dy, const Weight& w, Accumulate accumulate) {
  const ArgumentCheck check(ctx, "linear_input_grad");
  check.float_matrix("dy", dy);
  check.trainable("w", w);
  check.float_matrix("w", w.source());
  check.weight("w", w, dy.dtype(), {dy.columns(), w.source().columns()});
  check.window("dx", dx, dy.dtype(), {dy.rows(), w.source().columns()});
  check.disjoint("dx", dx, "dy", dy);
  check.disjoint("dx", dx, "w", w.source());
  if (dx.elements() == 0 || dy.elements() == 0) {
    zero_when_storing(ctx, dx, accumulate);
    return;
  }
  dispatch_all<LinearInputGradArgs>(ctx, "linear_input_grad", cpu::linear_input_grad_list(),
                                    cuda::linear_input_grad_list(), ref::linear_input_grad_list(),
                                    {dx, dy, read_by(ctx, w), accumulate});
}

void linear_weight_grad(Context& ctx, const Tensor& dw, const Tensor& dy, const Tensor& x, Accumulate accumulate) {
  const ArgumentCheck check(ctx, "linear_weight_grad");
  check.float_matrix("dy", dy);
  check.float_matrix("x", x);
  check.window("x", x, dy.dtype(), {dy.rows(), x.columns()});
  check.whole("dw", dw, statistics_dtype(dy.dtype()), {dy.columns(), x.columns()});
  check.disjoint("dw", dw, "dy", dy);
  check.disjoint("dw", dw, "x", x);
  if (dw.elements() == 0 || dy.rows() == 0) {
    zero_when_storing(ctx, dw, accumulate);
    return;
  }
  dispatch_all<LinearWeightGradArgs>(ctx, "linear_weight_grad", cpu::linear_weight_grad_list(),
                                     cuda::linear_weight_grad_list(), ref::linear_weight_grad_list(),
                                     {dw, dy, x, accumulate});
}

void bias_grad(Context& ctx, const Tensor& db, const Tensor& dy, Accumulate accumulate) {
  const ArgumentCheck check(ctx, "bias_grad");
  check.float_matrix("dy", dy);
  check.whole("db", db, statistics_dtype(dy.dtype()), {dy.columns()});
  check.disjoint("db", db, "dy", dy);
  if (dy.elements() == 0) {
    zero_when_storing(ctx, db, accumulate);
    return;
  }
  dispatch_all<BiasGradArgs>(ctx, "bias_grad", cpu::bias_grad_list(), cuda::bias_grad_list(), ref::bias_grad_list(),
                             {db, dy, accumulate});
}

}  // namespace caravan::ops

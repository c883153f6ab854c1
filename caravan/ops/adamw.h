// AdamW (Loshchilov & Hutter 2019, algorithm 2) and the gradient norm, as torch computes them.
#pragma once

#include "caravan/ops/context.h"
#include "caravan/ops/step_record.h"

namespace caravan::ops {

struct AdamW {
  double lr = 8e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  std::int64_t step = 1;        // from 1: the correction's exponent
  double gradient_scale = 1.0;  // the clipping coefficient, folded into the pass
};

// One pass over master, moments and gradient, in torch's order:
//   g' = gradient_scale g;  p = p (1 - lr decay);  m = m + (1 - beta1) (g' - m);  v = beta2 v + (1 - beta2) g'^2
//   p = p - (lr / (1 - beta1^step)) m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
// master, m, v, gradient: one shape, all f32 or all f64, contiguous; none overlaps another.  Throws ShapeError
// otherwise, or when step is below 1.
void adamw(Context& ctx, const Tensor& master, const Tensor& m, const Tensor& v, const Tensor& gradient,
           const AdamW& settings);

// The same with lr, step and gradient_scale as they stand in `record` (decide_step), whatever the settings say of them;
// nothing is written where it says that the step is not applied.  record: [kStepFields] f64.
void adamw(Context& ctx, const Tensor& master, const Tensor& m, const Tensor& v, const Tensor& gradient,
           const AdamW& settings, const Tensor& record);

// sum[0] += sum of x^2, in f64, blocks of a fixed size in order: the same bits for every thread count.
// sum: [1] f64.  x: any compute float dtype, contiguous.
void add_sum_of_squares(Context& ctx, const Tensor& sum, const Tensor& x);

}  // namespace caravan::ops

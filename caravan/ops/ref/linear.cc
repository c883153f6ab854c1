// y[t, o] = sum_i x[t, i] w[o, i] + bias[o] + residual[t, o], summed in double from i = 0 upwards; a row of w in blocks
// is dequantised first.
#include "caravan/ops/linear.h"

#include <vector>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/ref/weight_rows.h"

namespace caravan::ops::ref {
namespace {

// T: x, w and bias.  Y: y and residual.
template <typename T, typename Y>
void run_typed(const Context& ctx, const LinearArgs& args) {
  const std::int64_t tokens = args.x.rows();
  const std::int64_t in = args.x.columns();
  const std::int64_t out = args.y.columns();
  const Rows<const T> x(args.x);
  const WeightRows<T> w(args.w);
  const Rows<Y> y(args.y);
  const Rows<const Y> residual(args.residual);
  const T* bias = elements<const T>(args.bias);

  parallel_for(ctx.threads, out, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> row(static_cast<std::size_t>(in));
    for (std::int64_t o = begin; o < end; ++o) {
      w.read(o, row.data());
      for (std::int64_t t = 0; t < tokens; ++t) {
        double sum = 0;
        for (std::int64_t i = 0; i < in; ++i) {
          sum += load(x[t][i]) * row[static_cast<std::size_t>(i)];
        }
        if (args.bias.defined()) {
          sum += load(bias[o]);
        }
        if (args.residual.defined()) {
          sum += load(residual[t][o]);
        }
        y[t][o] = round_to<Y>(sum);
      }
    }
  });
}

void run(Context& ctx, const LinearArgs& args, std::byte*) {
  with_float_type(args.x.dtype(), [&]<typename T>() {
    if (args.y.dtype() == args.x.dtype()) {
      run_typed<T, T>(ctx, args);
    } else {
      run_typed<T, float>(ctx, args);
    }
  });
}

constexpr Implementation<LinearArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run}};

}  // namespace

ImplementationList<LinearArgs> linear_list() {
  return kList;
}

}  // namespace caravan::ops::ref

// y = x / sqrt(mean(x^2) + eps) * w, with the rounding between the two steps that kHuggingFace asks for.
#include "caravan/ops/rms_norm.h"

#include <cmath>

#include "caravan/ops/args.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

// S: the dtype of rstd.
template <typename T, typename S>
void run_typed(const RmsNormArgs& args) {
  const std::int64_t features = args.x.columns();
  const Rows<const T> x(args.x);
  const Rows<T> y(args.y);
  const T* w = elements<const T>(args.w);

  for (std::int64_t t = 0; t < args.x.rows(); ++t) {
    double squares = 0;
    for (std::int64_t i = 0; i < features; ++i) {
      squares += load(x[t][i]) * load(x[t][i]);
    }
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(features) + args.eps);
    if (args.rstd.defined()) {
      elements<S>(args.rstd)[t] = round_to<S>(rstd);
    }
    for (std::int64_t i = 0; i < features; ++i) {
      double normalised = load(x[t][i]) * rstd;
      if (args.rounding == NormRounding::kHuggingFace) {
        normalised = load(round_to<T>(normalised));
      }
      y[t][i] = round_to<T>(normalised * load(w[i]));
    }
  }
}

void run(Context&, const RmsNormArgs& args, std::byte*) {
  with_float_type(args.x.dtype(), [&]<typename T>() {
    if (args.x.dtype() == DType::kF64) {
      run_typed<T, double>(args);
    } else {
      run_typed<T, float>(args);
    }
  });
}

constexpr Implementation<RmsNormArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run}};

}  // namespace

ImplementationList<RmsNormArgs> rms_norm_list() {
  return kList;
}

}  // namespace caravan::ops::ref

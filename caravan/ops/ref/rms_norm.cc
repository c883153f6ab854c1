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

// dx = r (g - x r^2 mean(g x)),  g = dy w
template <typename T, typename S>
void input_grad(const RmsNormInputGradArgs& args) {
  const std::int64_t features = args.x.columns();
  const Rows<const T> dy(args.dy);
  const Rows<const T> x(args.x);
  const Rows<T> dx(args.dx);
  const T* w = elements<const T>(args.w);
  for (std::int64_t t = 0; t < args.x.rows(); ++t) {
    const double r = load(elements<const S>(args.rstd)[t]);
    double sum = 0;
    for (std::int64_t i = 0; i < features; ++i) {
      sum += load(dy[t][i]) * load(w[i]) * load(x[t][i]);
    }
    const double mean = sum / static_cast<double>(features);
    for (std::int64_t i = 0; i < features; ++i) {
      const double g = load(dy[t][i]) * load(w[i]);
      store(dx[t][i], r * (g - load(x[t][i]) * r * r * mean), args.accumulate);
    }
  }
}

template <typename T, typename S>
void weight_grad(const RmsNormWeightGradArgs& args) {
  const Rows<const T> dy(args.dy);
  const Rows<const T> x(args.x);
  const S* rstd = elements<const S>(args.rstd);
  S* dw = elements<S>(args.dw);
  for (std::int64_t i = 0; i < args.x.columns(); ++i) {
    double sum = 0;
    for (std::int64_t t = 0; t < args.x.rows(); ++t) {
      double normalised = load(x[t][i]) * load(rstd[t]);
      if (args.rounding == NormRounding::kHuggingFace) {
        normalised = load(round_to<T>(normalised));
      }
      sum += load(dy[t][i]) * normalised;
    }
    store(dw[i], sum, args.accumulate);
  }
}

void run(Context&, const RmsNormArgs& args, std::byte*) {
  with_float_types(args.x.dtype(), [&]<typename T, typename S>() { run_typed<T, S>(args); });
}

void run_input_grad(Context&, const RmsNormInputGradArgs& args, std::byte*) {
  with_float_types(args.x.dtype(), [&]<typename T, typename S>() { input_grad<T, S>(args); });
}

void run_weight_grad(Context&, const RmsNormWeightGradArgs& args, std::byte*) {
  with_float_types(args.x.dtype(), [&]<typename T, typename S>() { weight_grad<T, S>(args); });
}

constexpr Implementation<RmsNormInputGradArgs> kInputGradList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_input_grad}};
constexpr Implementation<RmsNormWeightGradArgs> kWeightGradList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_weight_grad}};
constexpr Implementation<RmsNormArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run}};

}  // namespace

ImplementationList<RmsNormArgs> rms_norm_list() {
  return kList;
}
ImplementationList<RmsNormInputGradArgs> rms_norm_input_grad_list() {
  return kInputGradList;
}
ImplementationList<RmsNormWeightGradArgs> rms_norm_weight_grad_list() {
  return kWeightGradList;
}

}  // namespace caravan::ops::ref

// AdamW element by element, and the sum of squares in the order of memory.
#include "caravan/ops/adamw.h"

#include <cmath>

#include "caravan/ops/args.h"
#include "caravan/ops/host_checks.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

template <typename T>
void adamw(const AdamWArgs& args) {
  const std::optional<AdamWFactors> factors = host_factors(args);
  if (!factors) {
    return;
  }
  const AdamW& settings = args.settings;
  const double step_size = factors->lr / factors->correction1;
  const T* gradient = elements<const T>(args.gradient);
  T* master = elements<T>(args.master);
  T* m = elements<T>(args.m);
  T* v = elements<T>(args.v);
  for (std::int64_t i = 0; i < args.master.elements(); ++i) {
    const double g = factors->gradient_scale * load(gradient[i]);
    const double decayed = load(master[i]) * (1 - factors->lr * settings.weight_decay);
    const double first = load(m[i]) + (1 - settings.beta1) * (g - load(m[i]));
    const double second = settings.beta2 * load(v[i]) + (1 - settings.beta2) * g * g;
    m[i] = round_to<T>(first);
    v[i] = round_to<T>(second);
    master[i] =
        round_to<T>(decayed - step_size * first / (std::sqrt(second) / factors->root_correction + settings.eps));
  }
}

void run_adamw(Context&, const AdamWArgs& args, std::byte*) {
  if (args.master.dtype() == DType::kF64) {
    adamw<double>(args);
  } else {
    adamw<float>(args);
  }
}

void run_sum_of_squares(Context&, const SumOfSquaresArgs& args, std::byte*) {
  with_float_type(args.x.dtype(), [&]<typename T>() {
    const T* x = elements<const T>(args.x);
    double sum = 0;
    for (std::int64_t i = 0; i < args.x.elements(); ++i) {
      sum += load(x[i]) * load(x[i]);
    }
    *elements<double>(args.sum) += sum;
  });
}

constexpr Implementation<AdamWArgs> kAdamWList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_adamw}};
constexpr Implementation<SumOfSquaresArgs> kSumOfSquaresList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_sum_of_squares}};

}  // namespace

ImplementationList<AdamWArgs> adamw_list() {
  return kAdamWList;
}
ImplementationList<SumOfSquaresArgs> sum_of_squares_list() {
  return kSumOfSquaresList;
}

}  // namespace caravan::ops::ref

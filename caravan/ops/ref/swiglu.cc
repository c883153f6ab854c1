// y = gate / (1 + exp(-gate)) * up
#include "caravan/ops/swiglu.h"

#include <cmath>

#include "caravan/ops/args.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

void run(Context&, const SwigluArgs& args, std::byte*) {
  with_float_type(args.y.dtype(), [&]<typename T>() {
    const std::int64_t features = args.y.columns();
    const Rows<const T> gate_up(args.gate_up);
    const Rows<T> y(args.y);
    for (std::int64_t t = 0; t < args.y.rows(); ++t) {
      for (std::int64_t i = 0; i < features; ++i) {
        const double gate = load(gate_up[t][i]);
        const double up = load(gate_up[t][features + i]);
        y[t][i] = round_to<T>(gate / (1 + std::exp(-gate)) * up);
      }
    }
  });
}

constexpr Implementation<SwigluArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run}};

}  // namespace

ImplementationList<SwigluArgs> swiglu_list() {
  return kList;
}

}  // namespace caravan::ops::ref

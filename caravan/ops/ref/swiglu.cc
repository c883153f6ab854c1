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

void run_grad(Context&, const SwigluGradArgs& args, std::byte*) {
  with_float_type(args.dy.dtype(), [&]<typename T>() {
    const std::int64_t features = args.dy.columns();
    const Rows<const T> dy(args.dy);
    const Rows<const T> gate_up(args.gate_up);
    const Rows<T> d_gate_up(args.d_gate_up);
    for (std::int64_t t = 0; t < args.dy.rows(); ++t) {
      for (std::int64_t i = 0; i < features; ++i) {
        // Both are read before either is written: the gradient may stand in their place.
        const double gate = load(gate_up[t][i]);
        const double up = load(gate_up[t][features + i]);
        const double sigmoid = 1 / (1 + std::exp(-gate));
        d_gate_up[t][i] = round_to<T>(load(dy[t][i]) * up * sigmoid * (1 + gate * (1 - sigmoid)));
        d_gate_up[t][features + i] = round_to<T>(load(dy[t][i]) * gate * sigmoid);
      }
    }
  });
}

constexpr Implementation<SwigluGradArgs> kGradList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_grad}};
constexpr Implementation<SwigluArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run}};

}  // namespace

ImplementationList<SwigluArgs> swiglu_list() {
  return kList;
}
ImplementationList<SwigluGradArgs> swiglu_grad_list() {
  return kGradList;
}

}  // namespace caravan::ops::ref

// The gated activation: a thread a pack of a row.
#include "caravan/ops/swiglu.h"

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, int kCount>
__global__ void forward_kernel(Rows<T> y, Rows<const T> gate_up, std::int64_t rows, std::int64_t features) {
  using R = Real<T>;
  using Packed = Pack<T, kCount>;
  const std::int64_t packs = features / kCount;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= rows * packs) {
    return;
  }
  const std::int64_t row = at / packs;
  const std::int64_t i = at % packs * kCount;
  const Packed gates = Packed::at(gate_up[row] + i);
  const Packed ups = Packed::at(gate_up[row] + features + i);
  Packed result;
  for (int j = 0; j < kCount; ++j) {
    const R gate = load(gates.element[j]);
    result.element[j] = round_to<T>(gate / (R{1} + exponential(-gate)) * load(ups.element[j]));
  }
  result.put(y[row] + i);
}

template <typename T, int kCount>
__global__ void grad_kernel(Rows<T> d_gate_up, Rows<const T> dy, Rows<const T> gate_up, std::int64_t rows,
                            std::int64_t features) {
  using R = Real<T>;
  using Packed = Pack<T, kCount>;
  const std::int64_t packs = features / kCount;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= rows * packs) {
    return;
  }
  const std::int64_t row = at / packs;
  const std::int64_t i = at % packs * kCount;
  const Packed gradients = Packed::at(dy[row] + i);
  const Packed gates = Packed::at(gate_up[row] + i);
  const Packed ups = Packed::at(gate_up[row] + features + i);
  Packed d_gates, d_ups;
  for (int j = 0; j < kCount; ++j) {
    const R gradient = load(gradients.element[j]);
    const R gate = load(gates.element[j]);
    const R sigmoid = R{1} / (R{1} + exponential(-gate));
    d_gates.element[j] = round_to<T>(gradient * load(ups.element[j]) * sigmoid * (R{1} + gate * (R{1} - sigmoid)));
    d_ups.element[j] = round_to<T>(gradient * gate * sigmoid);
  }
  d_gates.put(d_gate_up[row] + i);
  d_ups.put(d_gate_up[row] + features + i);
}

// Whether the second half of each row begins at a multiple of 16 bytes too.
bool wide_halves(const Tensor& gate_up) {
  return wide(gate_up) && gate_up.columns() / 2 * size_of(gate_up.dtype()) % 16 == 0;
}

void run_forward(Context& /*ctx*/, const SwigluArgs& args, std::byte* /*workspace*/) {
  const std::int64_t rows = args.y.rows();
  const std::int64_t features = args.y.columns();
  with_element(args.y.dtype(), [&]<typename T>() {
    with_width<T>(wide_halves(args.gate_up) && wide(args.y), [&]<int kCount>() {
      launch("swiglu", forward_kernel<T, kCount>, blocks_for(rows * features / kCount, kThreads), kThreads, 0,
             Rows<T>(args.y), Rows<const T>(args.gate_up), rows, features);
    });
  });
}

void run_grad(Context& /*ctx*/, const SwigluGradArgs& args, std::byte* /*workspace*/) {
  const std::int64_t rows = args.dy.rows();
  const std::int64_t features = args.dy.columns();
  with_element(args.dy.dtype(), [&]<typename T>() {
    with_width<T>(wide_halves(args.gate_up) && wide_halves(args.d_gate_up) && wide(args.dy), [&]<int kCount>() {
      launch("swiglu_grad", grad_kernel<T, kCount>, blocks_for(rows * features / kCount, kThreads), kThreads, 0,
             Rows<T>(args.d_gate_up), Rows<const T>(args.dy), Rows<const T>(args.gate_up), rows, features);
    });
  });
}

constexpr Implementation<SwigluArgs> kForward[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_forward},
};
constexpr Implementation<SwigluGradArgs> kGrad[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_grad},
};

}  // namespace

ImplementationList<SwigluArgs> swiglu_list() {
  return kForward;
}

ImplementationList<SwigluGradArgs> swiglu_grad_list() {
  return kGrad;
}

}  // namespace caravan::ops::cuda

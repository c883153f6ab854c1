// Products where there is no cuBLASLt: loops on the processor, which the emulated device's memory is open to.
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/gemm.h"
#include "caravan/ops/cuda/state.h"

namespace caravan::ops::cuda {
namespace {

template <typename In, typename Out>
void multiply(const Gemm& g) {
  using R = Real<In>;
  const auto* a = reinterpret_cast<const In*>(g.a.data);
  const auto* b = reinterpret_cast<const In*>(g.b.data);
  const auto* c = reinterpret_cast<const Out*>(g.c);
  const auto* bias = reinterpret_cast<const In*>(g.bias);
  auto* d = reinterpret_cast<Out*>(g.d);
  const std::int64_t a_row = g.a.transposed ? 1 : g.a.stride;
  const std::int64_t a_step = g.a.transposed ? g.a.stride : 1;
  const std::int64_t b_column = g.b.transposed ? g.b.stride : 1;
  const std::int64_t b_step = g.b.transposed ? 1 : g.b.stride;
  for (std::int64_t i = 0; i < g.m; ++i) {
    for (std::int64_t j = 0; j < g.n; ++j) {
      R sum = 0;
      for (std::int64_t p = 0; p < g.k; ++p) {
        sum += static_cast<R>(load(a[i * a_row + p * a_step])) * static_cast<R>(load(b[j * b_column + p * b_step]));
      }
      R value = static_cast<R>(g.alpha) * sum;
      if (g.beta != 0.0) {
        value += static_cast<R>(g.beta) * static_cast<R>(load(c[i * g.c_stride + j]));
      }
      if (bias != nullptr) {
        value += static_cast<R>(load(bias[j]));
      }
      d[i * g.d_stride + j] = round_to<Out>(static_cast<Real<Out>>(value));
    }
  }
}

}  // namespace

void gemm(Context& /*ctx*/, const Gemm& product, std::byte* /*workspace*/) {
  with_element(product.in, [&]<typename In>() {
    if (product.out == product.in) {
      multiply<In, In>(product);
    } else {
      multiply<In, float>(product);
    }
  });
}

}  // namespace caravan::ops::cuda

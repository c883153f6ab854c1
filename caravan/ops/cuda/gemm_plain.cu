// The product that takes everything: tiles in shared memory, one result a thread.
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/gemm.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kTile = 16;

template <typename In, typename Out>
__global__ void plain_kernel(Gemm g) {
  using R = Real<In>;
  __shared__ R a_tile[kTile][kTile + 1], b_tile[kTile][kTile + 1];
  const auto* a = reinterpret_cast<const In*>(g.a.data);
  const auto* b = reinterpret_cast<const In*>(g.b.data);
  const int x = static_cast<int>(threadIdx.x);
  const int y = static_cast<int>(threadIdx.y);
  const std::int64_t row0 = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const std::int64_t a_row = g.a.transposed ? 1 : g.a.stride;
  const std::int64_t a_step = g.a.transposed ? g.a.stride : 1;
  const std::int64_t b_column = g.b.transposed ? g.b.stride : 1;
  const std::int64_t b_step = g.b.transposed ? 1 : g.b.stride;
  for (std::int64_t column0 = static_cast<std::int64_t>(blockIdx.y) * kTile; column0 < g.n;
       column0 += static_cast<std::int64_t>(gridDim.y) * kTile) {
    R sum = 0;
    for (std::int64_t k0 = 0; k0 < g.k; k0 += kTile) {
      a_tile[y][x] = row0 + y < g.m && k0 + x < g.k ? load(a[(row0 + y) * a_row + (k0 + x) * a_step]) : R{0};
      b_tile[y][x] = k0 + y < g.k && column0 + x < g.n ? load(b[(column0 + x) * b_column + (k0 + y) * b_step]) : R{0};
      __syncthreads();
      for (int i = 0; i < kTile; ++i) {
        sum += a_tile[y][i] * b_tile[i][x];
      }
      __syncthreads();
    }
    const std::int64_t row = row0 + y;
    const std::int64_t column = column0 + x;
    if (row < g.m && column < g.n) {
      R value = static_cast<R>(g.alpha) * sum;
      if (g.beta != 0.0) {
        value +=
            static_cast<R>(g.beta) * static_cast<R>(load(reinterpret_cast<const Out*>(g.c)[row * g.c_stride + column]));
      }
      if (g.bias != nullptr) {
        value += static_cast<R>(load(reinterpret_cast<const In*>(g.bias)[column]));
      }
      reinterpret_cast<Out*>(g.d)[row * g.d_stride + column] = round_to<Out>(static_cast<Real<Out>>(value));
    }
  }
}

}  // namespace

void gemm_plain(const Gemm& product) {
  const dim3 grid(blocks_for(product.m, kTile), std::min(blocks_for(product.n, kTile), kMostOfAxis));
  with_element(product.in, [&]<typename In>() {
    if (product.out == product.in) {
      launch("gemm_plain", plain_kernel<In, In>, grid, dim3(kTile, kTile), 0, product);
    } else {
      launch("gemm_plain", plain_kernel<In, float>, grid, dim3(kTile, kTile), 0, product);
    }
  });
}

}  // namespace caravan::ops::cuda

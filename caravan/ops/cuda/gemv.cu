// A warp takes kRows rows of the weight; its lanes walk along them side by side, 16 bytes of a row each, and multiply by
// the same 16 bytes of each token's activations, which all warps share and so find in the cache.
#include "caravan/ops/cuda/gemv.h"

#include <cstring>

#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kWide = 8;  // elements of 16 bytes
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;

// Eight elements on their way: as words, since a loop would carry a pack's elements in a register each.
using Words = uint4;

template <typename T>
__device__ Words words_at(const T* place) {
  return *reinterpret_cast<const Words*>(place);
}
// Of what is read once.
template <typename T>
__device__ Words streamed_words_at(const T* place) {
  return __ldcs(reinterpret_cast<const Words*>(place));
}

template <typename T, typename Y>
struct Product {
  Rows<Y> y;
  Rows<const T> x;
  Rows<const T> w;
  const T* bias;
  Rows<const Y> residual;
  std::int64_t in, out;
  int tokens;
};

template <typename T, typename Y, int kTokens, int kRows, int kUnroll>
__global__ void __launch_bounds__(kThreads) gemv_kernel(Product<T, Y> p) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const std::int64_t first = warp * kRows;
  if (first >= p.out) {
    return;
  }
  const T* row[kRows];
  for (int r = 0; r < kRows; ++r) {
    row[r] = p.w[first + r < p.out ? first + r : p.out - 1];
  }
  const T* token[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    token[t] = p.x[t < p.tokens ? t : p.tokens - 1];
  }
  float sum[kRows][kTokens] = {};
  const auto add = [&](const Words& weight_words, const Words& activation_words, float& to) {
    Pack<T, kWide> weights, activations;
    memcpy(&weights, &weight_words, sizeof(Words));
    memcpy(&activations, &activation_words, sizeof(Words));
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      to += load(weights.element[i]) * load(activations.element[i]);
    }
  };
  constexpr int kStep = kWarp * kWide;
  constexpr int kRound = kUnroll * kStep;
  constexpr bool kAhead = kTokens <= 2;  // registers for a round's activations too
  Words weights[kUnroll][kRows];
  Words activations[kUnroll][kTokens];
  std::int64_t at = lane * kWide;
  const auto load_weights = [&](int u, std::int64_t from) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      weights[u][r] = streamed_words_at(row[r] + from + u * kStep);
    }
  };
  const auto load_activations = [&](int u, std::int64_t from) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      activations[u][t] = words_at(token[t] + from + u * kStep);
    }
  };
  const auto multiply = [&](int u) {
    if (!kAhead) {
      load_activations(u, at);
    }
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        add(weights[u][r], activations[u][t], sum[r][t]);
      }
    }
  };
  const auto fetch = [&](int u, std::int64_t from) {
    load_weights(u, from);
    if (kAhead) {
      load_activations(u, from);
    }
  };
  // Rounds that all lanes have in full.  A round's loads are asked for in the round before: within one round the compiler would
  // spread them among the products, and few would be under way at a time.
  if (const std::int64_t rounds = p.in / kRound; rounds > 0) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      fetch(u, at);
    }
    for (std::int64_t round = 1; round < rounds; ++round, at += kRound) {
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        multiply(u);
        fetch(u, at + kRound);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      multiply(u);
    }
    at += kRound;
  }
  for (; at < p.in; at += kStep) {
    load_weights(0, at);
    load_activations(0, at);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        add(weights[0][r], activations[0][t], sum[r][t]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      sum[r][t] = warp_sum(sum[r][t]);
    }
  }
  // Lane r * kTokens + t writes the result of row r and token t; every lane holds every sum.
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (lane == r * kTokens + t && first + r < p.out && t < p.tokens) {
        const std::int64_t column = first + r;
        float value = sum[r][t] + (p.bias == nullptr ? 0.0F : load(p.bias[column]));
        value += p.residual.base == nullptr ? 0.0F : load(p.residual[t][column]);
        p.y[t][column] = round_to<Y>(value);
      }
    }
  }
}

template <typename T, typename Y>
void run(const LinearArgs& args, const Tensor& w) {
  Product<T, Y> p;
  p.y = Rows<Y>(args.y);
  p.x = Rows<const T>(args.x);
  p.w = Rows<const T>(w);
  p.bias = elements<const T>(args.bias);
  if (args.residual.defined()) {
    p.residual = Rows<const Y>(args.residual);
  }
  p.in = args.x.columns();
  p.out = w.rows();
  p.tokens = static_cast<int>(args.x.rows());
  const auto start = [&]<int kTokens, int kRows, int kUnroll>() {
    launch("linear", gemv_kernel<T, Y, kTokens, kRows, kUnroll>, blocks_for(p.out, kWarps * kRows), kThreads, 0, p);
  };
  if (p.tokens == 1) {
    start.template operator()<1, 2, 4>();
  } else if (p.tokens == 2) {
    start.template operator()<2, 2, 4>();
  } else if (p.tokens <= 4) {
    start.template operator()<4, 2, 2>();
  } else {
    start.template operator()<8, 2, 2>();
  }
}

}  // namespace

const char* refuse_gemv(const LinearArgs& args) {
  if (args.x.dtype() != DType::kBF16 && args.x.dtype() != DType::kF16) {
    return "f32 and f64 are multiplied by cuBLASLt";
  }
  if (args.x.rows() > kGemvTokens) {
    return "more tokens than one reading of the weight serves";
  }
  // Copies that are made of a weight begin where the allocator's blocks do.
  const bool wide_weight = args.w.plain().defined() ? wide(args.w.plain()) : args.x.columns() % kWide == 0;
  return wide(args.x) && wide_weight ? nullptr : "rows do not begin at multiples of 16 bytes";
}

void gemv(const LinearArgs& args, const Tensor& w) {
  const bool f32 = args.y.dtype() == DType::kF32;
  if (args.x.dtype() == DType::kBF16) {
    f32 ? run<__nv_bfloat16, float>(args, w) : run<__nv_bfloat16, __nv_bfloat16>(args, w);
  } else {
    f32 ? run<__half, float>(args, w) : run<__half, __half>(args, w);
  }
}

}  // namespace caravan::ops::cuda

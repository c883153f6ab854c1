// RMS normalisation and its gradients: a block a row; the second walk along a row finds it in the cache.
#include "caravan/ops/rms_norm.h"

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

template <typename R>
__device__ R reciprocal_root(R value) {
  return R{1} / sqrt(value);
}

template <typename T, int kCount>
__global__ void norm_kernel(Rows<T> y, Real<T>* rstd, Rows<const T> x, const T* w, std::int64_t features, Real<T> eps,
                            bool rounds_twice) {
  using R = Real<T>;
  using Packed = Pack<T, kCount>;
  const std::int64_t row = blockIdx.x;
  const std::int64_t step = static_cast<std::int64_t>(blockDim.x) * kCount;
  R squares = 0;
  for (std::int64_t i = threadIdx.x * kCount; i < features; i += step) {
    const Packed values = Packed::at(x[row] + i);
    for (int j = 0; j < kCount; ++j) {
      squares += load(values.element[j]) * load(values.element[j]);
    }
  }
  const R r = reciprocal_root(block_sum(squares) / static_cast<R>(features) + eps);
  if (rstd != nullptr && threadIdx.x == 0) {
    rstd[row] = r;
  }
  for (std::int64_t i = threadIdx.x * kCount; i < features; i += step) {
    const Packed values = Packed::at(x[row] + i);
    const Packed weights = Packed::at(w + i);
    Packed result;
    for (int j = 0; j < kCount; ++j) {
      R normal = load(values.element[j]) * r;
      normal = rounds_twice ? load(round_to<T>(normal)) : normal;
      result.element[j] = round_to<T>(normal * load(weights.element[j]));
    }
    result.put(y[row] + i);
  }
}

void run_norm(Context& /*ctx*/, const RmsNormArgs& args, std::byte* /*workspace*/) {
  const std::int64_t features = args.x.columns();
  with_element(args.x.dtype(), [&]<typename T>() {
    with_width<T>(wide(args.x) && wide(args.y) && wide(args.w), [&]<int kCount>() {
      launch("rms_norm", norm_kernel<T, kCount>, static_cast<unsigned>(args.x.rows()), threads_for(features / kCount),
             0, Rows<T>(args.y), elements<Real<T>>(args.rstd), Rows<const T>(args.x), elements<const T>(args.w),
             features, args.eps, args.rounding == NormRounding::kHuggingFace);
    });
  });
}

// dx = r (g - x r^2 mean(g x)),  g = dy w
template <typename T, int kCount>
__global__ void input_grad_kernel(Rows<T> dx, Rows<const T> dy, Rows<const T> x, const Real<T>* rstd, const T* w,
                                  std::int64_t features, bool add) {
  using R = Real<T>;
  using Packed = Pack<T, kCount>;
  const std::int64_t row = blockIdx.x;
  const std::int64_t step = static_cast<std::int64_t>(blockDim.x) * kCount;
  R sum = 0;
  for (std::int64_t i = threadIdx.x * kCount; i < features; i += step) {
    const Packed gradients = Packed::at(dy[row] + i);
    const Packed values = Packed::at(x[row] + i);
    const Packed weights = Packed::at(w + i);
    for (int j = 0; j < kCount; ++j) {
      sum += load(gradients.element[j]) * load(weights.element[j]) * load(values.element[j]);
    }
  }
  const R r = rstd[row];
  const R slope = block_sum(sum) / static_cast<R>(features) * r * r;
  for (std::int64_t i = threadIdx.x * kCount; i < features; i += step) {
    const Packed gradients = Packed::at(dy[row] + i);
    const Packed values = Packed::at(x[row] + i);
    const Packed weights = Packed::at(w + i);
    Packed result;
    if (add) {
      result = Packed::at(dx[row] + i);
    }
    for (int j = 0; j < kCount; ++j) {
      const R g = load(gradients.element[j]) * load(weights.element[j]);
      const R value = r * (g - load(values.element[j]) * slope);
      result.element[j] = round_to<T>(add ? load(result.element[j]) + value : value);
    }
    result.put(dx[row] + i);
  }
}

void run_input_grad(Context& /*ctx*/, const RmsNormInputGradArgs& args, std::byte* /*workspace*/) {
  const std::int64_t features = args.x.columns();
  with_element(args.x.dtype(), [&]<typename T>() {
    with_width<T>(wide(args.x) && wide(args.dx) && wide(args.dy) && wide(args.w), [&]<int kCount>() {
      launch("rms_norm_input_grad", input_grad_kernel<T, kCount>, static_cast<unsigned>(args.x.rows()),
             threads_for(features / kCount), 0, Rows<T>(args.dx), Rows<const T>(args.dy), Rows<const T>(args.x),
             elements<const Real<T>>(args.rstd), elements<const T>(args.w), features,
             args.accumulate == Accumulate::kAdd);
    });
  });
}

// Sums over tokens: a block takes kWarp packs of columns and one stretch of the rows, kLines rows at a time; a second
// kernel adds the stretches in order.
constexpr int kLines = 8;
constexpr unsigned kStretches = 64;

template <typename T, int kCount>
__global__ void weight_grad_kernel(Real<T>* partial, Rows<const T> dy, Rows<const T> x, const Real<T>* rstd,
                                   std::int64_t rows, std::int64_t features, bool rounds_twice) {
  using R = Real<T>;
  using Packed = Pack<T, kCount>;
  __shared__ R of_line[kLines][kWarp * kCount];
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kWarp + threadIdx.x) * kCount;
  const std::int64_t begin = rows * blockIdx.y / gridDim.y;
  const std::int64_t end = rows * (blockIdx.y + 1) / gridDim.y;
  R sum[kCount] = {};
  for (std::int64_t row = begin + threadIdx.y; row < end && column < features; row += kLines) {
    const Packed gradients = Packed::at(dy[row] + column);
    const Packed values = Packed::at(x[row] + column);
    const R r = rstd[row];
    for (int j = 0; j < kCount; ++j) {
      R normal = load(values.element[j]) * r;
      normal = rounds_twice ? load(round_to<T>(normal)) : normal;
      sum[j] += load(gradients.element[j]) * normal;
    }
  }
  for (int j = 0; j < kCount; ++j) {
    of_line[threadIdx.y][threadIdx.x * kCount + j] = sum[j];
  }
  __syncthreads();
  for (int j = static_cast<int>(threadIdx.y * kWarp + threadIdx.x); j < kWarp * kCount; j += kLines * kWarp) {
    const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kWarp * kCount + j;
    if (at < features) {
      R total = 0;
      for (int line = 0; line < kLines; ++line) {
        total += of_line[line][j];
      }
      partial[blockIdx.y * features + at] = total;
    }
  }
}

template <typename R>
__global__ void join_kernel(R* dw, const R* partial, std::int64_t features, bool add) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= features) {
    return;
  }
  R sum = 0;
  for (unsigned stretch = 0; stretch < kStretches; ++stretch) {
    sum += partial[stretch * features + column];
  }
  dw[column] = add ? dw[column] + sum : sum;
}

std::int64_t weight_grad_workspace(Context& /*ctx*/, const RmsNormWeightGradArgs& args) {
  return static_cast<std::int64_t>(kStretches) * args.dw.elements() * size_of(args.dw.dtype());
}

void run_weight_grad(Context& /*ctx*/, const RmsNormWeightGradArgs& args, std::byte* workspace) {
  constexpr unsigned kThreads = 128;
  const std::int64_t features = args.x.columns();
  with_element(args.x.dtype(), [&]<typename T>() {
    auto* partial = reinterpret_cast<Real<T>*>(workspace);
    with_width<T>(wide(args.x) && wide(args.dy), [&]<int kCount>() {
      launch("rms_norm_weight_grad", weight_grad_kernel<T, kCount>,
             dim3(blocks_for(features, kWarp * kCount), kStretches), dim3(kWarp, kLines), 0, partial,
             Rows<const T>(args.dy), Rows<const T>(args.x), elements<const Real<T>>(args.rstd), args.x.rows(), features,
             args.rounding == NormRounding::kHuggingFace);
    });
    launch("rms_norm_weight_grad", join_kernel<Real<T>>, blocks_for(features, kThreads), kThreads, 0,
           elements<Real<T>>(args.dw), partial, features, args.accumulate == Accumulate::kAdd);
  });
}

constexpr Implementation<RmsNormArgs> kNorm[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_norm},
};
constexpr Implementation<RmsNormInputGradArgs> kInputGrad[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_input_grad},
};
constexpr Implementation<RmsNormWeightGradArgs> kWeightGrad[] = {
    {"columns", Backend::kCuda, Isa::kAvx2, nullptr, weight_grad_workspace, run_weight_grad},
};

}  // namespace

ImplementationList<RmsNormArgs> rms_norm_list() {
  return kNorm;
}

ImplementationList<RmsNormInputGradArgs> rms_norm_input_grad_list() {
  return kInputGrad;
}

ImplementationList<RmsNormWeightGradArgs> rms_norm_weight_grad_list() {
  return kWeightGrad;
}

}  // namespace caravan::ops::cuda

// RMS normalisation and its gradients.  Where there are many rows, a warp takes one and keeps it in registers; else a block
// does, whose second walk along the row finds it in the cache.
#include "caravan/ops/rms_norm.h"

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/columns.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

template <typename R>
__device__ R reciprocal_root(R value) {
  return R{1} / sqrt(value);
}

// x / rms(x), rounded to T where the weight comes after a rounding.
template <typename T>
__device__ Real<T> normalised(T x, Real<T> r, bool rounds_twice) {
  const Real<T> normal = load(x) * r;
  return rounds_twice ? load(round_to<T>(normal)) : normal;
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
      result.element[j] = round_to<T>(normalised(values.element[j], r, rounds_twice) * load(weights.element[j]));
    }
    result.put(y[row] + i);
  }
}

constexpr int kRowsOfBlock = 4;  // a warp each

// kPacks: of a lane.
template <typename T, int kPacks>
__global__ void __launch_bounds__(kRowsOfBlock* kWarp)
    norm_rows_kernel(Rows<T> y, Real<T>* rstd, Rows<const T> x, const T* w, std::int64_t rows, std::int64_t features,
                     Real<T> eps, bool rounds_twice) {
  using R = Real<T>;
  constexpr int kCount = kWideCount<T>;
  using Packed = Pack<T, kCount>;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kRowsOfBlock + threadIdx.x / kWarp;
  const std::int64_t lane = threadIdx.x % kWarp * kCount;
  if (row >= rows) {
    return;  // all lanes of a warp
  }
  Packed values[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    if (lane + p * kWarp * kCount < features) {
      values[p] = Packed::at(x[row] + lane + p * kWarp * kCount);
    }
  }
  R squares = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    for (int j = 0; j < kCount && lane + p * kWarp * kCount < features; ++j) {
      squares += load(values[p].element[j]) * load(values[p].element[j]);
    }
  }
  const R r = reciprocal_root(warp_sum(squares) / static_cast<R>(features) + eps);
  if (rstd != nullptr && lane == 0) {
    rstd[row] = r;
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = lane + p * kWarp * kCount;
    if (i < features) {
      const Packed weights = Packed::at(w + i);
      for (int j = 0; j < kCount; ++j) {
        values[p].element[j] =
            round_to<T>(normalised(values[p].element[j], r, rounds_twice) * load(weights.element[j]));
      }
      values[p].put(y[row] + i);
    }
  }
}

// Calls body.operator()<kPacks>() with the packs of a lane when a warp can hold a row in registers; whether it did.
template <typename T, typename Body>
bool with_rows_in_registers(std::int64_t rows, std::int64_t features, bool all_wide, const Body& body) {
  constexpr std::int64_t kFewest = 512;  // rows that occupy the device a warp each
  const std::int64_t packs = (features + kWarp * kWideCount<T> - 1) / (kWarp * kWideCount<T>);
  if (!all_wide || rows < kFewest || packs > 16 || std::is_same_v<T, double>) {
    return false;
  }
  if (packs <= 1) {
    body.template operator()<1>();
  } else if (packs <= 2) {
    body.template operator()<2>();
  } else if (packs <= 4) {
    body.template operator()<4>();
  } else if (packs <= 8) {
    body.template operator()<8>();
  } else {
    body.template operator()<16>();
  }
  return true;
}

void run_norm(Context& /*ctx*/, const RmsNormArgs& args, std::byte* /*workspace*/) {
  const std::int64_t rows = args.x.rows();
  const std::int64_t features = args.x.columns();
  const bool all_wide = wide(args.x) && wide(args.y) && wide(args.w);
  with_element(args.x.dtype(), [&]<typename T>() {
    const bool done = with_rows_in_registers<T>(rows, features, all_wide, [&]<int kPacks>() {
      launch("rms_norm", norm_rows_kernel<T, kPacks>, blocks_for(rows, kRowsOfBlock), kRowsOfBlock * kWarp, 0,
             Rows<T>(args.y), elements<Real<T>>(args.rstd), Rows<const T>(args.x), elements<const T>(args.w), rows,
             features, args.eps, args.rounding == NormRounding::kHuggingFace);
    });
    if (done) {
      return;
    }
    with_width<T>(all_wide, [&]<int kCount>() {
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

template <typename T, int kPacks>
__global__ void __launch_bounds__(kRowsOfBlock* kWarp)
    input_grad_rows_kernel(Rows<T> dx, Rows<const T> dy, Rows<const T> x, const Real<T>* rstd, const T* w,
                           std::int64_t rows, std::int64_t features, bool add) {
  using R = Real<T>;
  constexpr int kCount = kWideCount<T>;
  using Packed = Pack<T, kCount>;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kRowsOfBlock + threadIdx.x / kWarp;
  const std::int64_t lane = threadIdx.x % kWarp * kCount;
  if (row >= rows) {
    return;
  }
  Packed gradients[kPacks], values[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = lane + p * kWarp * kCount;
    if (i < features) {
      gradients[p] = Packed::at(dy[row] + i);
      values[p] = Packed::at(x[row] + i);
    }
  }
  R sum = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = lane + p * kWarp * kCount;
    if (i < features) {
      const Packed weights = Packed::at(w + i);
      for (int j = 0; j < kCount; ++j) {
        sum += load(gradients[p].element[j]) * load(weights.element[j]) * load(values[p].element[j]);
      }
    }
  }
  const R r = rstd[row];
  const R slope = warp_sum(sum) / static_cast<R>(features) * r * r;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const std::int64_t i = lane + p * kWarp * kCount;
    if (i < features) {
      forget(gradients[p]);
      forget(values[p]);
      const Packed weights = Packed::at(w + i);
      Packed result;
      if (add) {
        result = Packed::at(dx[row] + i);
      }
      for (int j = 0; j < kCount; ++j) {
        const R g = load(gradients[p].element[j]) * load(weights.element[j]);
        const R value = r * (g - load(values[p].element[j]) * slope);
        result.element[j] = round_to<T>(add ? load(result.element[j]) + value : value);
      }
      result.put(dx[row] + i);
    }
  }
}

void run_input_grad(Context& /*ctx*/, const RmsNormInputGradArgs& args, std::byte* /*workspace*/) {
  const std::int64_t rows = args.x.rows();
  const std::int64_t features = args.x.columns();
  const bool all_wide = wide(args.x) && wide(args.dx) && wide(args.dy) && wide(args.w);
  with_element(args.x.dtype(), [&]<typename T>() {
    const bool done = with_rows_in_registers<T>(rows, features, all_wide, [&]<int kPacks>() {
      launch("rms_norm_input_grad", input_grad_rows_kernel<T, kPacks>, blocks_for(rows, kRowsOfBlock),
             kRowsOfBlock * kWarp, 0, Rows<T>(args.dx), Rows<const T>(args.dy), Rows<const T>(args.x),
             elements<const Real<T>>(args.rstd), elements<const T>(args.w), rows, features,
             args.accumulate == Accumulate::kAdd);
    });
    if (done) {
      return;
    }
    with_width<T>(all_wide, [&]<int kCount>() {
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
      sum[j] += load(gradients.element[j]) * normalised(values.element[j], r, rounds_twice);
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

std::int64_t weight_grad_workspace(Context& /*ctx*/, const RmsNormWeightGradArgs& args) {
  return static_cast<std::int64_t>(kStretches) * args.dw.elements() * size_of(args.dw.dtype());
}

void run_weight_grad(Context& /*ctx*/, const RmsNormWeightGradArgs& args, std::byte* workspace) {
  const std::int64_t features = args.x.columns();
  with_element(args.x.dtype(), [&]<typename T>() {
    auto* partial = reinterpret_cast<Real<T>*>(workspace);
    with_width<T>(wide(args.x) && wide(args.dy), [&]<int kCount>() {
      launch("rms_norm_weight_grad", weight_grad_kernel<T, kCount>,
             dim3(blocks_for(features, kWarp * kCount), kStretches), dim3(kWarp, kLines), 0, partial,
             Rows<const T>(args.dy), Rows<const T>(args.x), elements<const Real<T>>(args.rstd), args.x.rows(), features,
             args.rounding == NormRounding::kHuggingFace);
    });
    join_stretches<Real<T>>("rms_norm_weight_grad", elements<Real<T>>(args.dw), partial, features,
                            args.accumulate == Accumulate::kAdd);
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

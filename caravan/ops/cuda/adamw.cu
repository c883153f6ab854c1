// AdamW in one pass over memory, and the sum of squares of gradients.
#include "caravan/ops/adamw.h"

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kThreads = 256;

// The step's constants, made in f64 as torch makes them.
template <typename R>
struct Constants {
  R gradient_scale, kept, one_minus_beta1, beta2, one_minus_beta2, step_size, root_correction, eps;

  __device__ Constants(const AdamW& settings, const AdamWFactors& factors)
      : gradient_scale(static_cast<R>(factors.gradient_scale)),
        kept(static_cast<R>(1 - factors.lr * settings.weight_decay)),
        one_minus_beta1(static_cast<R>(1 - settings.beta1)),
        beta2(static_cast<R>(settings.beta2)),
        one_minus_beta2(static_cast<R>(1 - settings.beta2)),
        step_size(static_cast<R>(factors.lr / factors.correction1)),
        root_correction(static_cast<R>(factors.root_correction)),
        eps(static_cast<R>(settings.eps)) {}
};

constexpr int kUnroll = 2;  // packs of each tensor that a thread has in flight

template <typename R, int kCount>
__global__ void adamw_kernel(R* master, R* m, R* v, const R* gradient, std::int64_t count, AdamW settings,
                             AdamWFactors factors, const double* record) {
  using Packed = Pack<R, kCount>;
  if (record != nullptr) {
    if (record[kApplied] == 0) {
      return;
    }
    factors = {record[kLr], record[kGradientScale], record[kCorrection1], record[kRootCorrection]};
  }
  const Constants<R> c(settings, factors);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x * kCount;
  for (std::int64_t begin = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount; begin < count;
       begin += kUnroll * step) {
    Packed gradients[kUnroll], masters[kUnroll], firsts[kUnroll], seconds[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t i = begin + u * step;
      if (i < count) {
        gradients[u] = Packed::at(gradient + i);
        masters[u] = Packed::at(master + i);
        firsts[u] = Packed::at(m + i);
        seconds[u] = Packed::at(v + i);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t i = begin + u * step;
      if (i >= count) {
        continue;
      }
      for (int j = 0; j < kCount; ++j) {
        const R g = c.gradient_scale * gradients[u].element[j];
        const R first = firsts[u].element[j] + c.one_minus_beta1 * (g - firsts[u].element[j]);
        const R second = c.beta2 * seconds[u].element[j] + c.one_minus_beta2 * g * g;
        firsts[u].element[j] = first;
        seconds[u].element[j] = second;
        masters[u].element[j] =
            masters[u].element[j] * c.kept - c.step_size * first / (sqrt(second) / c.root_correction + c.eps);
      }
      masters[u].put(master + i);
      firsts[u].put(m + i);
      seconds[u].put(v + i);
    }
  }
}

void run_adamw(Context& ctx, const AdamWArgs& args, std::byte* /*workspace*/) {
  const std::int64_t count = args.master.elements();
  const AdamWFactors factors = args.record.defined() ? AdamWFactors{} : factors_of(args.settings);
  const auto start = [&]<typename R>() {
    // Flat memory: whole packs, or single elements.
    const auto aligned = [](const Tensor& tensor) {
      return reinterpret_cast<std::uintptr_t>(tensor.address()) % 16 == 0;
    };
    const bool all = count % kWideCount<R> == 0 && aligned(args.master) && aligned(args.m) && aligned(args.v) &&
                     aligned(args.gradient);
    with_width<R>(all, [&]<int kCount>() {
      const unsigned most = static_cast<unsigned>(state(ctx).multiprocessors) * 16;
      launch("adamw", adamw_kernel<R, kCount>, std::min(blocks_for(count, kThreads * kCount), most), kThreads, 0,
             elements<R>(args.master), elements<R>(args.m), elements<R>(args.v), elements<const R>(args.gradient),
             count, args.settings, factors, elements<const double>(args.record));
    });
  };
  if (args.master.dtype() == DType::kF64) {
    start.template operator()<double>();
  } else {
    start.template operator()<float>();
  }
}

constexpr unsigned kParts = 2048;

template <typename T, int kCount>
__global__ void squares_kernel(double* parts, const T* x, std::int64_t count) {
  using Packed = Pack<T, kCount>;
  constexpr int kInFlight = 4;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x * kCount;
  double sum = 0;
  for (std::int64_t begin = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kCount; begin < count;
       begin += kInFlight * step) {
    Packed values[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      if (begin + u * step < count) {
        values[u] = Packed::at(x + begin + u * step);
      }
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      for (int j = 0; j < kCount && begin + u * step < count; ++j) {
        const auto value = static_cast<double>(load(values[u].element[j]));
        sum += value * value;
      }
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = sum;
  }
}

__global__ void join_squares_kernel(double* sum, const double* parts, unsigned count) {
  double mine = 0;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    mine += parts[i];
  }
  mine = block_sum(mine);
  if (threadIdx.x == 0) {
    *sum += mine;
  }
}

std::int64_t squares_workspace(Context& /*ctx*/, const SumOfSquaresArgs& /*args*/) {
  return kParts * static_cast<std::int64_t>(sizeof(double));
}

void run_squares(Context& /*ctx*/, const SumOfSquaresArgs& args, std::byte* workspace) {
  auto* parts = reinterpret_cast<double*>(workspace);
  const std::int64_t count = args.x.elements();
  with_element(args.x.dtype(), [&]<typename T>() {
    const bool all = count % kWideCount<T> == 0 && reinterpret_cast<std::uintptr_t>(args.x.address()) % 16 == 0;
    with_width<T>(all, [&]<int kCount>() {
      const unsigned blocks = std::min(blocks_for(count, kThreads * kCount), kParts);
      launch("add_sum_of_squares", squares_kernel<T, kCount>, blocks, kThreads, 0, parts, elements<const T>(args.x),
             count);
      launch("add_sum_of_squares", join_squares_kernel, 1, kThreads, 0, elements<double>(args.sum), parts, blocks);
    });
  });
}

constexpr Implementation<AdamWArgs> kAdamW[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_adamw},
};
constexpr Implementation<SumOfSquaresArgs> kSquares[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, squares_workspace, run_squares},
};

}  // namespace

ImplementationList<AdamWArgs> adamw_list() {
  return kAdamW;
}

ImplementationList<SumOfSquaresArgs> sum_of_squares_list() {
  return kSquares;
}

}  // namespace caravan::ops::cuda

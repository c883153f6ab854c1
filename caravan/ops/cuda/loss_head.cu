// The last product and the cross entropy, chunk by chunk over the tokens.
//
// A chunk's logits are made in scratch, a block a row walks along them for the maximum and the sum of exponentials and
// again for the gradient, and two more products take the gradient on.  Hidden rows whose target is ignored are zeros in the
// chunk's copy: they may be NaN, and the weight's gradient sums over all rows.
#include "caravan/ops/loss_head.h"

#include <cmath>

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/gemm.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kThreads = 512;
constexpr std::int64_t kAligned = 256;

// Gradients in scratch are scale (softmax - onehot).  f16 would lose all below 6e-8, so there they are 2^15 (softmax - onehot),
// of which it keeps what is above 2^-40, and the rest of the scale is a factor of the products.
constexpr double kHalfUnit = 32768.0;
template <typename T>
double factor_of_gradients(double scale) {
  return std::is_same_v<T, __half> ? kHalfUnit : scale;
}
template <typename T>
double factor_of_products(double scale) {
  return std::is_same_v<T, __half> ? scale / kHalfUnit : 1.0;
}

// Where a call's scratch lies.
struct Scratch {
  std::int64_t rows;  // of a chunk
  std::int64_t hidden, logits, gradients, product, bytes;
};

Scratch scratch_of(std::int64_t tokens, std::int64_t features, std::int64_t vocab, DType dtype, bool with_grad) {
  // Of a chunk's logits.  Each chunk reads and writes the whole gradient of the weight: four thousand tokens of a vocabulary
  // of 128 thousand make that a small part.
  constexpr std::int64_t kMostBytes = std::int64_t{2112} << 20;
  constexpr std::int64_t kRows = 128;
  const std::int64_t real = dtype == DType::kF64 ? 8 : 4;
  const std::int64_t most = kMostBytes / (vocab * real) / kRows * kRows;
  Scratch s{};
  s.rows = std::min(tokens, std::max(kRows, most));
  std::int64_t end = 0;
  const auto place = [&end](std::int64_t bytes) {
    const std::int64_t begin = end;
    end = (end + bytes + kAligned - 1) / kAligned * kAligned;
    return begin;
  };
  const std::int64_t size = size_of(dtype);
  s.product = place(kGemmWorkspace);
  s.hidden = place(s.rows * features * size);
  s.logits = place(s.rows * vocab * real);
  // Gradients as wide as logits stand in their place.
  s.gradients = with_grad && size < real ? place(s.rows * vocab * size) : s.logits;
  s.bytes = end;
  return s;
}

// y = x, or zeros where the target is ignored.  A block a row.
template <typename T>
__global__ void mask_kernel(T* y, Rows<const T> x, const std::int32_t* targets, std::int64_t features) {
  const std::int64_t row = blockIdx.x;
  const bool counts = targets[row] != kIgnoredTarget;
  for (std::int64_t i = threadIdx.x; i < features; i += blockDim.x) {
    y[row * features + i] = counts ? x[row][i] : round_to<T>(Real<T>{0});
  }
}

// What exponents count from: the maximum, or 0 where all are minus infinity and two of them have no difference.
template <typename R>
__device__ R base_of(R top) {
  return top == -INFINITY ? R{0} : top;
}

// The maximum and the sum of exponentials below it, of a thread, a warp or a block.  The maximum passes over a NaN, the sum
// keeps it.
template <typename R>
struct LogSum {
  R top, sum;

  __device__ void add(const LogSum& other) {
    const R higher = top > other.top ? top : other.top;
    const R base = base_of(higher);
    sum = sum * exponential(top - base) + other.sum * exponential(other.top - base);
    top = higher;
  }
};

// Calls body(i, pack) with this thread's packs of a row, each asked for before the one before it is used.
template <typename R, int kCount, typename Body>
__device__ void walk(const R* row, std::int64_t length, const Body& body) {
  using Packed = Pack<R, kCount>;
  const std::int64_t step = static_cast<std::int64_t>(blockDim.x) * kCount;
  std::int64_t i = threadIdx.x * kCount;
  if (i >= length) {
    return;
  }
  Packed now = Packed::at(row + i);
  for (; i + step < length; i += step) {
    const Packed next = Packed::at(row + i + step);
    body(i, now);
    now = next;
  }
  body(i, now);
}

// logits become G(scale (softmax - onehot)) when `gradients` is given, which may be where they stand.
template <typename R, typename G, int kCount>
__global__ void __launch_bounds__(kThreads)
    loss_kernel(R* nll, G* gradients, const R* logits, const std::int32_t* targets, std::int64_t vocab, R scale) {
  using Packed = Pack<R, kCount>;
  const std::int64_t row = blockIdx.x;
  const std::int32_t target = targets[row];
  const R* logit = logits + row * vocab;
  G* gradient = gradients == nullptr ? nullptr : gradients + row * vocab;
  const bool ignored = target == kIgnoredTarget;
  const bool lies = !ignored && (target < 0 || target >= vocab);
  if (ignored || lies) {
    // A target outside the vocabulary cannot be an error on a GPU: its loss is no number.
    if (threadIdx.x == 0) {
      nll[row] = ignored ? R{0} : static_cast<R>(NAN);
    }
    for (std::int64_t i = threadIdx.x; i < vocab && gradient != nullptr; i += blockDim.x) {
      gradient[i] = round_to<G>(Real<G>{0});
    }
    return;
  }
  LogSum<R> mine{-INFINITY, 0};
  walk<R, kCount>(logit, vocab, [&](std::int64_t /*i*/, const Packed& values) {
    R top = mine.top;
    for (int j = 0; j < kCount; ++j) {
      top = values.element[j] > top ? values.element[j] : top;
    }
    const R base = base_of(top);
    R sum = mine.sum * exponential(mine.top - base);
    for (int j = 0; j < kCount; ++j) {
      sum += exponential(values.element[j] - base);
    }
    mine = {top, sum};
  });
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    mine.add({__shfl_xor_sync(kAllLanes, mine.top, distance), __shfl_xor_sync(kAllLanes, mine.sum, distance)});
  }
  __shared__ R tops[kWarp], sums[kWarp];
  if (threadIdx.x % kWarp == 0) {
    tops[threadIdx.x / kWarp] = mine.top;
    sums[threadIdx.x / kWarp] = mine.sum;
  }
  __syncthreads();
  LogSum<R> all{tops[0], sums[0]};
  for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) {
    all.add({tops[warp], sums[warp]});
  }
  const R at_target = logit[target];
  __syncthreads();  // the target's logit is read before anybody writes in its place
  if (threadIdx.x == 0) {
    nll[row] = all.top + logarithm(all.sum) - at_target;
  }
  if (gradient == nullptr) {
    return;
  }
  const R share = scale / all.sum;
  // Where gradients stand in the logits' place a thread writes what it alone has read, and has read the next already.
  walk<R, kCount>(logit, vocab, [&](std::int64_t i, const Packed& values) {
    Pack<G, kCount> result;
    for (int j = 0; j < kCount; ++j) {
      R value = exponential(values.element[j] - all.top) * share;
      value = i + j == target ? value - scale : value;
      result.element[j] = round_to<G>(static_cast<Real<G>>(value));
    }
    result.put(gradient + i);
  });
}

// The parts of a call; without gradients d_hidden and dw are undefined.
struct Call {
  Tensor token_nll, d_hidden, dw, hidden, w, targets;
  double scale;
};

// T: hidden's elements.
template <typename T>
class Head {
 public:
  using R = Real<T>;

  Head(Context& ctx, const Call& call, std::byte* workspace)
      : ctx_(ctx),
        call_(call),
        features_(call.hidden.columns()),
        vocab_(call.w.rows()),
        with_grad_(call.d_hidden.defined()),
        scratch_(scratch_of(call.hidden.rows(), features_, vocab_, call.hidden.dtype(), with_grad_)),
        workspace_(workspace) {}

  void run() {
    for (std::int64_t begin = 0; begin < call_.hidden.rows(); begin += scratch_.rows) {
      chunk(begin, std::min(call_.hidden.rows(), begin + scratch_.rows));
    }
  }

 private:
  template <typename E>
  E* at(std::int64_t place) const {
    return reinterpret_cast<E*>(workspace_ + place);
  }

  // A product of this call: the dtypes are given.
  Gemm product(DType out) const {
    Gemm g;
    g.in = call_.hidden.dtype();
    g.out = out;
    return g;
  }
  // Of gradients that stand in scratch.
  Gemm product_of_gradients(const Tensor& result) const {
    Gemm g = product(result.dtype());
    g.alpha = factor_of_products<T>(call_.scale);
    g.set_result(result);
    return g;
  }

  Operand scratch_operand(std::int64_t place, std::int64_t stride, bool transposed = false) const {
    Operand operand;
    operand.data = workspace_ + place;
    operand.stride = stride;
    operand.transposed = transposed;
    return operand;
  }

  void chunk(std::int64_t begin, std::int64_t end) {
    const std::int64_t rows = end - begin;
    const auto* targets = elements<const std::int32_t>(call_.targets) + begin;
    launch("loss_head", mask_kernel<T>, static_cast<unsigned>(rows), kThreads / 2, 0, at<T>(scratch_.hidden),
           Rows<const T>(call_.hidden.row_range(begin, end)), targets, features_);

    const DType real = call_.token_nll.dtype();
    Gemm logits = product(real);
    logits.m = rows;
    logits.n = vocab_;
    logits.k = features_;
    logits.a = scratch_operand(scratch_.hidden, features_);
    logits.b = Operand(call_.w, /*is_transposed=*/true);
    logits.d = workspace_ + scratch_.logits;
    logits.d_stride = vocab_;
    gemm(ctx_, logits, workspace_ + scratch_.product);

    T* const gradients = with_grad_ ? at<T>(scratch_.gradients) : nullptr;
    // Rows of logits follow each other without gaps.
    with_width<R>(vocab_ % (16 / static_cast<std::int64_t>(sizeof(T))) == 0, [&]<int kCount>() {
      launch("loss_head", loss_kernel<R, T, kCount>, static_cast<unsigned>(rows), kThreads, 0,
             elements<R>(call_.token_nll) + begin, gradients, at<const R>(scratch_.logits), targets, vocab_,
             factor_of_gradients<T>(call_.scale));
    });
    if (with_grad_) {
      gradients_of(begin, end);
    }
  }

  void gradients_of(std::int64_t begin, std::int64_t end) {
    const std::int64_t rows = end - begin;
    Gemm d_hidden = product_of_gradients(call_.d_hidden.row_range(begin, end));
    d_hidden.m = rows;
    d_hidden.n = features_;
    d_hidden.k = vocab_;
    d_hidden.a = scratch_operand(scratch_.gradients, vocab_);
    d_hidden.b = Operand(call_.w);
    gemm(ctx_, d_hidden, workspace_ + scratch_.product);
    if (call_.dw.defined()) {
      Gemm dw = product_of_gradients(call_.dw);
      dw.m = vocab_;
      dw.n = features_;
      dw.k = rows;
      dw.a = scratch_operand(scratch_.gradients, vocab_, /*transposed=*/true);
      dw.b = scratch_operand(scratch_.hidden, features_);
      dw.set_addend(call_.dw);
      gemm(ctx_, dw, workspace_ + scratch_.product);
    }
  }

  Context& ctx_;
  const Call& call_;
  std::int64_t features_, vocab_;
  bool with_grad_;
  Scratch scratch_;
  std::byte* workspace_;
};

void run_call(Context& ctx, const Call& call, std::byte* workspace) {
  with_element(call.hidden.dtype(), [&]<typename T>() { Head<T>(ctx, call, workspace).run(); });
}

std::int64_t loss_workspace(Context& /*ctx*/, const LossHeadArgs& args) {
  return scratch_of(args.hidden.rows(), args.hidden.columns(), args.w.shape()[0], args.hidden.dtype(), false).bytes;
}

void run_loss(Context& ctx, const LossHeadArgs& args, std::byte* workspace) {
  run_call(ctx, {args.token_nll, Tensor(), Tensor(), args.hidden, args.w.plain(), args.targets, 1.0}, workspace);
}

std::int64_t grad_workspace(Context& /*ctx*/, const LossHeadGradArgs& args) {
  return scratch_of(args.hidden.rows(), args.hidden.columns(), args.w.shape()[0], args.hidden.dtype(), true).bytes;
}

void run_grad(Context& ctx, const LossHeadGradArgs& args, std::byte* workspace) {
  run_call(ctx, {args.token_nll, args.d_hidden, args.dw, args.hidden, args.w.plain(), args.targets, args.scale},
           workspace);
}

constexpr Implementation<LossHeadArgs> kLoss[] = {
    {"cublaslt", Backend::kCuda, Isa::kAvx2, nullptr, loss_workspace, run_loss},
};
constexpr Implementation<LossHeadGradArgs> kGrad[] = {
    {"cublaslt", Backend::kCuda, Isa::kAvx2, nullptr, grad_workspace, run_grad},
};

}  // namespace

ImplementationList<LossHeadArgs> loss_head_list() {
  return kLoss;
}

ImplementationList<LossHeadGradArgs> loss_head_grad_list() {
  return kGrad;
}

}  // namespace caravan::ops::cuda

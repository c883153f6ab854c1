// Products by cuBLASLt, those of few tokens by a kernel that reads the weight at the memory's speed, and the gradient of a
// bias.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/columns.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/gemm.h"
#include "caravan/ops/cuda/gemv.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/weights.h"

namespace caravan::ops::cuda {
namespace {

template <typename Args>
void prepare(Context& ctx, const Args& args) {
  prepare_weight(ctx, args.w);
}

template <typename Args>
std::int64_t product_workspace(Context& /*ctx*/, const Args& /*args*/) {
  return kGemmWorkspace;
}

// y [t, o] = x [t, i] w [o, i]^T + bias + residual
void run_linear(Context& ctx, const LinearArgs& args, std::byte* workspace) {
  const Tensor& w = weight_elements(args.w);
  Gemm product;
  product.m = args.x.rows();
  product.n = w.rows();
  product.k = args.x.columns();
  product.in = args.x.dtype();
  product.a = Operand(args.x);
  product.b = Operand(w, /*is_transposed=*/true);
  product.set_result(args.y);
  if (args.residual.defined()) {
    product.set_addend(args.residual);
  }
  product.bias = args.bias.defined() ? args.bias.address() : nullptr;
  gemm(ctx, product, workspace);
}

// dx [t, i] = dy [t, o] w [o, i]
void run_input_grad(Context& ctx, const LinearInputGradArgs& args, std::byte* workspace) {
  const Tensor& w = weight_elements(args.w);
  Gemm product;
  product.m = args.dy.rows();
  product.n = w.columns();
  product.k = args.dy.columns();
  product.in = args.dy.dtype();
  product.a = Operand(args.dy);
  product.b = Operand(w);
  product.set_result(args.dx);
  if (args.accumulate == Accumulate::kAdd) {
    product.set_addend(args.dx);
  }
  gemm(ctx, product, workspace);
}

// dw [o, i] = dy [t, o]^T x [t, i]
void run_weight_grad(Context& ctx, const LinearWeightGradArgs& args, std::byte* workspace) {
  Gemm product;
  product.m = args.dy.columns();
  product.n = args.x.columns();
  product.k = args.x.rows();
  product.in = args.dy.dtype();
  product.a = Operand(args.dy, /*is_transposed=*/true);
  product.b = Operand(args.x);
  product.set_result(args.dw);
  if (args.accumulate == Accumulate::kAdd) {
    product.set_addend(args.dw);
  }
  gemm(ctx, product, workspace);
}

const char* refuse_few_tokens(const Context& /*ctx*/, const LinearArgs& args) {
  return refuse_gemv(args);
}

void run_few_tokens(Context& /*ctx*/, const LinearArgs& args, std::byte* /*workspace*/) {
  gemv(args, weight_elements(args.w));
}

// Sums of columns: a block takes kColumns of them and one stretch of the rows, a second kernel adds the stretches in order.
constexpr int kColumns = 32;
constexpr int kLines = 8;

template <typename T>
__global__ void column_sums_kernel(Real<T>* partial, Rows<const T> dy, std::int64_t rows, std::int64_t columns) {
  using R = Real<T>;
  __shared__ R of_line[kLines][kColumns];
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kColumns + threadIdx.x;
  const std::int64_t begin = rows * blockIdx.y / gridDim.y;
  const std::int64_t end = rows * (blockIdx.y + 1) / gridDim.y;
  R sum = 0;
  for (std::int64_t row = begin + threadIdx.y; row < end && column < columns; row += kLines) {
    sum += load(dy[row][column]);
  }
  of_line[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    for (int line = 1; line < kLines; ++line) {
      sum += of_line[line][threadIdx.x];
    }
    partial[blockIdx.y * columns + column] = sum;
  }
}

std::int64_t bias_workspace(Context& /*ctx*/, const BiasGradArgs& args) {
  return kStretches * args.db.elements() * size_of(args.db.dtype());
}

void run_bias(Context& /*ctx*/, const BiasGradArgs& args, std::byte* workspace) {
  const std::int64_t columns = args.db.elements();
  with_element(args.dy.dtype(), [&]<typename T>() {
    auto* partial = reinterpret_cast<Real<T>*>(workspace);
    launch("bias_grad", column_sums_kernel<T>, dim3(blocks_for(columns, kColumns), kStretches), dim3(kColumns, kLines),
           0, partial, Rows<const T>(args.dy), args.dy.rows(), columns);
    join_stretches<Real<T>>("bias_grad", elements<Real<T>>(args.db), partial, columns,
                            args.accumulate == Accumulate::kAdd);
  });
}

constexpr Implementation<LinearArgs> kLinear[] = {
    {"gemv", Backend::kCuda, Isa::kAvx2, refuse_few_tokens, nullptr, run_few_tokens, prepare<LinearArgs>},
    {"cublaslt", Backend::kCuda, Isa::kAvx2, nullptr, product_workspace<LinearArgs>, run_linear, prepare<LinearArgs>},
};
constexpr Implementation<LinearInputGradArgs> kInputGrad[] = {
    {"cublaslt", Backend::kCuda, Isa::kAvx2, nullptr, product_workspace<LinearInputGradArgs>, run_input_grad,
     prepare<LinearInputGradArgs>},
};
constexpr Implementation<LinearWeightGradArgs> kWeightGrad[] = {
    {"cublaslt", Backend::kCuda, Isa::kAvx2, nullptr, product_workspace<LinearWeightGradArgs>, run_weight_grad},
};
constexpr Implementation<BiasGradArgs> kBiasGrad[] = {
    {"columns", Backend::kCuda, Isa::kAvx2, nullptr, bias_workspace, run_bias},
};

}  // namespace

ImplementationList<LinearArgs> linear_list() {
  return kLinear;
}

ImplementationList<LinearInputGradArgs> linear_input_grad_list() {
  return kInputGrad;
}

ImplementationList<LinearWeightGradArgs> linear_weight_grad_list() {
  return kWeightGrad;
}

ImplementationList<BiasGradArgs> bias_grad_list() {
  return kBiasGrad;
}

}  // namespace caravan::ops::cuda

// Sums, copies and conversions of whole tensors.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kThreads = 256;

// From any compute float to any other with one rounding: f64 to a small type does not pass through f32.
template <typename Y, typename X>
__device__ Y converted(X value) {
  if constexpr (std::is_same_v<X, double> && std::is_same_v<Y, __nv_bfloat16>) {
    return __double2bfloat16(value);
  } else if constexpr (std::is_same_v<X, double> && std::is_same_v<Y, __half>) {
    return __double2half(value);
  } else if constexpr (std::is_same_v<Y, X>) {
    return value;
  } else {
    return round_to<Y>(static_cast<Real<Y>>(load(value)));
  }
}

template <typename Y, typename X>
__global__ void convert_kernel(Rows<Y> y, Rows<const X> x, std::int64_t rows, std::int64_t columns) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < rows * columns;
       at += step) {
    y[at / columns][at % columns] = converted<Y, X>(x[at / columns][at % columns]);
  }
}

// A warp of the grid for every row that a tensor of few, long rows has would leave the rest idle: tensors without gaps
// are one row.
struct Extent {
  std::int64_t rows, columns;
};

Extent extent_of(const Tensor& a, const Tensor& b, const Tensor& c) {
  const bool flat = a.contiguous() && b.contiguous() && c.contiguous();
  return flat ? Extent{1, a.elements()} : Extent{a.rows(), a.columns()};
}

unsigned grid_of(Context& ctx, std::int64_t elements) {
  constexpr int kPerMultiprocessor = 16;
  return std::min(blocks_for(elements, kThreads),
                  static_cast<unsigned>(state(ctx).multiprocessors * kPerMultiprocessor));
}

void run_convert(Context& ctx, const ConvertArgs& args, std::byte* /*workspace*/) {
  const Extent extent = extent_of(args.y, args.x, args.x);
  with_element(args.y.dtype(), [&]<typename Y>() {
    with_element(args.x.dtype(), [&]<typename X>() {
      launch("convert", convert_kernel<Y, X>, grid_of(ctx, args.x.elements()), kThreads, 0, Rows<Y>(args.y),
             Rows<const X>(args.x), extent.rows, extent.columns);
    });
  });
}

template <typename T>
__global__ void add_kernel(Rows<T> y, Rows<const T> a, Rows<const T> b, std::int64_t rows, std::int64_t columns) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < rows * columns;
       at += step) {
    const std::int64_t row = at / columns;
    const std::int64_t column = at % columns;
    y[row][column] = round_to<T>(load(a[row][column]) + load(b[row][column]));
  }
}

void run_add(Context& ctx, const AddArgs& args, std::byte* /*workspace*/) {
  const Extent extent = extent_of(args.y, args.a, args.b);
  with_element(args.y.dtype(), [&]<typename T>() {
    launch("add", add_kernel<T>, grid_of(ctx, args.y.elements()), kThreads, 0, Rows<T>(args.y), Rows<const T>(args.a),
           Rows<const T>(args.b), extent.rows, extent.columns);
  });
}

void run_zero(Context& /*ctx*/, const ZeroArgs& args, std::byte* /*workspace*/) {
  const auto size = static_cast<std::size_t>(size_of(args.y.dtype()));
  if (args.y.contiguous()) {
    check_cuda(cudaMemsetAsync(args.y.address(), 0, static_cast<std::size_t>(args.y.bytes()), stream()), "zero");
  } else {
    check_cuda(cudaMemset2DAsync(args.y.address(), static_cast<std::size_t>(args.y.row_stride()) * size, 0,
                                 static_cast<std::size_t>(args.y.columns()) * size,
                                 static_cast<std::size_t>(args.y.rows()), stream()),
               "zero");
  }
}

constexpr Implementation<ConvertArgs> kConvert[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_convert},
};
constexpr Implementation<AddArgs> kAdd[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_add},
};
constexpr Implementation<ZeroArgs> kZero[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_zero},
};

}  // namespace

ImplementationList<AddArgs> add_list() {
  return kAdd;
}

ImplementationList<ConvertArgs> convert_list() {
  return kConvert;
}

ImplementationList<ZeroArgs> zero_list() {
  return kZero;
}

}  // namespace caravan::ops::cuda

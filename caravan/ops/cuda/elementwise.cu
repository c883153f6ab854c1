// Sums, copies and conversions of whole tensors.
#include <algorithm>
#include <initializer_list>

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

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

// Tensors without gaps are one row, so that few, long rows occupy the device as well as many.
struct Extent {
  std::int64_t rows, columns;
};

Extent extent_of(std::initializer_list<const Tensor*> tensors) {
  const Tensor& first = **tensors.begin();
  const bool flat = std::ranges::all_of(tensors, [](const Tensor* one) { return one->contiguous(); });
  return flat ? Extent{1, first.elements()} : Extent{first.rows(), first.columns()};
}

// Whether every tensor can be taken `count` elements at a time.
bool packable(std::initializer_list<const Tensor*> tensors, const Extent& extent, std::int64_t count) {
  return extent.columns % count == 0 && std::ranges::all_of(tensors, [&](const Tensor* one) {
           const std::int64_t bytes = std::min<std::int64_t>(16, count * size_of(one->dtype()));
           return reinterpret_cast<std::uintptr_t>(one->address()) % static_cast<std::uintptr_t>(bytes) == 0 &&
                  (extent.rows == 1 || one->row_stride() * size_of(one->dtype()) % bytes == 0);
         });
}

constexpr int kPack = 8;    // elements a thread takes at a time: 16 bytes of a small type, twice that of f32
constexpr int kUnroll = 2;  // packs in flight

unsigned grid_of(Context& ctx, std::int64_t packs) {
  constexpr int kPerMultiprocessor = 16;
  return std::min(blocks_for(packs, kThreads * kUnroll),
                  static_cast<unsigned>(state(ctx).multiprocessors * kPerMultiprocessor));
}

template <typename Y, typename X, int kCount>
__global__ void convert_kernel(Rows<Y> y, Rows<const X> x, std::int64_t rows, std::int64_t columns) {
  const std::int64_t packs = columns / kCount;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < rows * packs;
       at += kUnroll * step) {
    Pack<X, kCount> values[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t here = at + u * step;
      if (here < rows * packs) {
        values[u] = Pack<X, kCount>::at(x[here / packs] + here % packs * kCount);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t here = at + u * step;
      if (here < rows * packs) {
        Pack<Y, kCount> result;
        for (int j = 0; j < kCount; ++j) {
          result.element[j] = converted<Y, X>(values[u].element[j]);
        }
        result.put(y[here / packs] + here % packs * kCount);
      }
    }
  }
}

void run_convert(Context& ctx, const ConvertArgs& args, std::byte* /*workspace*/) {
  const Extent extent = extent_of({&args.y, &args.x});
  with_element(args.y.dtype(), [&]<typename Y>() {
    with_element(args.x.dtype(), [&]<typename X>() {
      const auto start = [&]<int kCount>() {
        launch("convert", convert_kernel<Y, X, kCount>, grid_of(ctx, args.x.elements() / kCount), kThreads, 0,
               Rows<Y>(args.y), Rows<const X>(args.x), extent.rows, extent.columns);
      };
      if (packable({&args.y, &args.x}, extent, kPack)) {
        start.template operator()<kPack>();
      } else {
        start.template operator()<1>();
      }
    });
  });
}

template <typename T, int kCount>
__global__ void add_kernel(Rows<T> y, Rows<const T> a, Rows<const T> b, std::int64_t rows, std::int64_t columns) {
  using Packed = Pack<T, kCount>;
  const std::int64_t packs = columns / kCount;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at < rows * packs;
       at += step) {
    const std::int64_t row = at / packs;
    const std::int64_t column = at % packs * kCount;
    const Packed left = Packed::at(a[row] + column);
    const Packed right = Packed::at(b[row] + column);
    Packed sum;
    for (int j = 0; j < kCount; ++j) {
      sum.element[j] = round_to<T>(load(left.element[j]) + load(right.element[j]));
    }
    sum.put(y[row] + column);
  }
}

void run_add(Context& ctx, const AddArgs& args, std::byte* /*workspace*/) {
  const Extent extent = extent_of({&args.y, &args.a, &args.b});
  with_element(args.y.dtype(), [&]<typename T>() {
    const bool all = packable({&args.y, &args.a, &args.b}, extent, kWideCount<T>);
    with_width<T>(all, [&]<int kCount>() {
      launch("add", add_kernel<T, kCount>, grid_of(ctx, args.y.elements() / kCount), kThreads, 0, Rows<T>(args.y),
             Rows<const T>(args.a), Rows<const T>(args.b), extent.rows, extent.columns);
    });
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

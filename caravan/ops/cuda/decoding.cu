// Steps of decoding whose places, lengths and ids stand on the device.
#include <cfloat>
#include <cmath>

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void append_kernel(Rows<T> dst, Rows<const T> src, const std::int32_t* at, std::int64_t rows,
                              std::int64_t columns) {
  const std::int64_t row = at[blockIdx.x];
  if (row < 0 || row >= rows) {
    return;
  }
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; i < columns;
       i += static_cast<std::int64_t>(gridDim.y) * blockDim.x) {
    dst[row][i] = src[blockIdx.x][i];
  }
}

void run_append(Context& /*ctx*/, const AppendRowsArgs& args, std::byte* /*workspace*/) {
  const std::int64_t columns = args.src.columns();
  const dim3 grid(static_cast<unsigned>(args.src.rows()), std::min(blocks_for(columns, kThreads), kMostOfAxis));
  with_element(args.dst.dtype(), [&]<typename T>() {
    launch("append_rows", append_kernel<T>, grid, kThreads, 0, Rows<T>(args.dst), Rows<const T>(args.src),
           elements<const std::int32_t>(args.at), args.dst.rows(), columns);
  });
}

__global__ void count_up_kernel(std::int32_t* values, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) {
    ++values[i];
  }
}

void run_count_up(Context& /*ctx*/, const CountUpArgs& args, std::byte* /*workspace*/) {
  launch("count_up", count_up_kernel, blocks_for(args.values.elements(), kThreads), kThreads, 0,
         elements<std::int32_t>(args.values), args.values.elements());
}

// The largest so far, its place, and whether a NaN was met.
template <typename R>
struct Largest {
  R value;
  std::int32_t place;  // -1: nothing above minus infinity
  std::int32_t nan;

  __device__ void meet(const Largest& other) {
    const bool wins =
        other.place >= 0 && (place < 0 || other.value > value || (other.value == value && other.place < place));
    if (wins) {
      value = other.value;
      place = other.place;
    }
    nan |= other.nan;
  }
  __device__ Largest of_lane(int distance) const {
    return {__shfl_xor_sync(kAllLanes, value, distance), __shfl_xor_sync(kAllLanes, place, distance),
            __shfl_xor_sync(kAllLanes, nan, distance)};
  }
};

template <typename R>
__device__ Largest<R> largest_of_block(Largest<R> mine) {
  __shared__ Largest<R> of_warp[kThreads / kWarp];
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    mine.meet(mine.of_lane(distance));
  }
  if (threadIdx.x % kWarp == 0) {
    of_warp[threadIdx.x / kWarp] = mine;
  }
  __syncthreads();
  Largest<R> all = of_warp[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) {
    all.meet(of_warp[warp]);
  }
  return all;
}

// Each block of a row's takes every gridDim.y-th stretch of kThreads; the second kernel compares what they found.
template <typename R>
__global__ void argmax_parts_kernel(Largest<R>* parts, const R* logits, std::int64_t vocab) {
  const R* row = logits + blockIdx.x * vocab;
  Largest<R> mine{0, -1, 0};
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; i < vocab;
       i += static_cast<std::int64_t>(gridDim.y) * blockDim.x) {
    const R value = row[i];
    const bool is_nan = value != value;
    mine.meet({value, is_nan || value == -INFINITY ? -1 : static_cast<std::int32_t>(i), is_nan ? 1 : 0});
  }
  mine = largest_of_block(mine);
  if (threadIdx.x == 0) {
    parts[static_cast<std::int64_t>(blockIdx.x) * gridDim.y + blockIdx.y] = mine;
  }
}

template <typename R>
__global__ void argmax_join_kernel(std::int32_t* ids, const Largest<R>* parts, int count) {
  Largest<R> mine{0, -1, 0};
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    mine.meet(parts[static_cast<std::int64_t>(blockIdx.x) * count + i]);
  }
  mine = largest_of_block(mine);
  if (threadIdx.x == 0) {
    ids[blockIdx.x] = mine.nan != 0 ? -1 : mine.place;
  }
}

// Of a row.
unsigned argmax_blocks(const ArgmaxArgs& args) {
  constexpr unsigned kMost = 64;
  return std::min(kMost, blocks_for(args.logits.columns(), kThreads));
}

std::int64_t argmax_workspace(Context& /*ctx*/, const ArgmaxArgs& args) {
  return args.logits.rows() * argmax_blocks(args) * static_cast<std::int64_t>(sizeof(Largest<double>));
}

template <typename R>
void run_argmax_typed(const ArgmaxArgs& args, std::byte* workspace) {
  auto* parts = reinterpret_cast<Largest<R>*>(workspace);
  const auto rows = static_cast<unsigned>(args.logits.rows());
  const unsigned blocks = argmax_blocks(args);
  launch("argmax", argmax_parts_kernel<R>, dim3(rows, blocks), kThreads, 0, parts,
         elements<const R>(args.logits), args.logits.columns());
  launch("argmax", argmax_join_kernel<R>, rows, kThreads, 0, elements<std::int32_t>(args.ids), parts, blocks);
}

void run_argmax(Context& /*ctx*/, const ArgmaxArgs& args, std::byte* workspace) {
  if (args.logits.dtype() == DType::kF64) {
    run_argmax_typed<double>(args, workspace);
  } else {
    run_argmax_typed<float>(args, workspace);
  }
}

constexpr Implementation<AppendRowsArgs> kAppend[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_append},
};
constexpr Implementation<ArgmaxArgs> kArgmax[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, argmax_workspace, run_argmax},
};
constexpr Implementation<CountUpArgs> kCountUp[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_count_up},
};

}  // namespace

ImplementationList<AppendRowsArgs> append_rows_list() {
  return kAppend;
}

ImplementationList<ArgmaxArgs> argmax_list() {
  return kArgmax;
}

ImplementationList<CountUpArgs> count_up_list() {
  return kCountUp;
}

}  // namespace caravan::ops::cuda

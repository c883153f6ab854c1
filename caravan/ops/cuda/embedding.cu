// Rows of a table by id, and their gradient without atomics: each token knows the next one of its id, and the first of an
// id walks along that chain and adds the rows in their order.
#include "caravan/ops/embedding.h"

#include <cmath>

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/weights.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

// An id outside the table cannot be an error on a GPU: its row is NaN, which no result survives.
template <typename T, int kCount>
__global__ void gather_kernel(Rows<T> y, Rows<const T> table, const std::int32_t* ids, std::int64_t vocab,
                              std::int64_t hidden) {
  using Packed = Pack<T, kCount>;
  const std::int64_t row = blockIdx.x;
  const std::int64_t id = ids[row];
  for (std::int64_t i = threadIdx.x * kCount; i < hidden; i += static_cast<std::int64_t>(blockDim.x) * kCount) {
    Packed values;
    if (id >= 0 && id < vocab) {
      values = Packed::at(table[id] + i);
    } else {
      for (int j = 0; j < kCount; ++j) {
        values.element[j] = round_to<T>(id < 0 ? Real<T>{0} : static_cast<Real<T>>(NAN));
      }
    }
    values.put(y[row] + i);
  }
}

void prepare_table(Context& ctx, const EmbeddingArgs& args) {
  prepare_weight(ctx, args.table);
}

void run_gather(Context& /*ctx*/, const EmbeddingArgs& args, std::byte* /*workspace*/) {
  const Tensor& table = weight_elements(args.table);
  with_element(args.y.dtype(), [&]<typename T>() {
    with_width<T>(wide(args.y) && wide(table), [&]<int kCount>() {
      launch("embedding", gather_kernel<T, kCount>, static_cast<unsigned>(args.y.rows()),
             threads_for(args.y.columns() / kCount), 0, Rows<T>(args.y), Rows<const T>(table),
             elements<const std::int32_t>(args.ids), table.rows(), args.y.columns());
    });
  });
}

constexpr int kSearchers = 128;
constexpr int kIdsAtOnce = 4;   // that a searcher compares between two barriers
constexpr int kRowsAtOnce = 4;  // of a chain that are asked for before the first is added: a frequent id's is long
constexpr std::int32_t kNotFirst = -2;  // of a token before which its id stood already
constexpr std::int32_t kLast = -1;

// next[t]: the next token of t's id, kLast; first[t]: whether t is the first of it.  A block a token.
__global__ void chain_kernel(std::int32_t* next, std::int32_t* first, const std::int32_t* ids, int tokens,
                             std::int64_t vocab, std::int64_t skipped) {
  const int token = static_cast<int>(blockIdx.x);
  const std::int32_t id = ids[token];
  const bool counts = id >= 0 && id < vocab && id != skipped;
  __shared__ int nearest;
  if (threadIdx.x == 0) {
    nearest = tokens;
  }
  __syncthreads();
  for (int begin = token + 1; begin < tokens && counts; begin += kSearchers * kIdsAtOnce) {
    int least = tokens;
#pragma unroll
    for (int u = 0; u < kIdsAtOnce; ++u) {
      const int at = begin + u * kSearchers + static_cast<int>(threadIdx.x);
      least = at < least && ids[at] == id ? at : least;
    }
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      const int other = __shfl_xor_sync(kAllLanes, least, distance);
      least = other < least ? other : least;
    }
    __shared__ int of_warp[kSearchers / kWarp];
    if (threadIdx.x % kWarp == 0) {
      of_warp[threadIdx.x / kWarp] = least;
    }
    __syncthreads();
    for (int warp = 0; warp < kSearchers / kWarp; ++warp) {
      least = of_warp[warp] < least ? of_warp[warp] : least;
    }
    __syncthreads();
    if (least < tokens) {
      if (threadIdx.x == 0) {
        nearest = least;
      }
      break;
    }
  }
  __syncthreads();
  bool seen = !counts;
  for (int end = token; end > 0 && counts; end -= kSearchers * kIdsAtOnce) {
    float here = 0.0F;
#pragma unroll
    for (int u = 0; u < kIdsAtOnce; ++u) {
      const int at = end - 1 - u * kSearchers - static_cast<int>(threadIdx.x);
      here = at >= 0 && ids[at] == id ? 1.0F : here;
    }
    if (block_sum(here) > 0.0F) {
      seen = true;
      break;
    }
  }
  if (threadIdx.x == 0) {
    next[token] = nearest < tokens ? nearest : kLast;
    first[token] = seen ? kNotFirst : token;
  }
}

template <typename T, int kCount>
__global__ void scatter_kernel(Rows<Real<T>> d_table, Rows<const T> dy, const std::int32_t* ids,
                               const std::int32_t* next, const std::int32_t* first, std::int64_t hidden) {
  using R = Real<T>;
  using Packed = Pack<T, kCount>;
  const std::int32_t token = first[blockIdx.x];
  if (token < 0) {
    return;
  }
  R* row = d_table[ids[token]];
  for (std::int64_t i = threadIdx.x * kCount; i < hidden; i += static_cast<std::int64_t>(blockDim.x) * kCount) {
    R sum[kCount] = {};
    for (std::int32_t at = token; at >= 0;) {
      std::int32_t rows[kRowsAtOnce];
      Packed values[kRowsAtOnce] = {};
#pragma unroll
      for (int u = 0; u < kRowsAtOnce; ++u) {
        rows[u] = at;
        if (at >= 0) {
          values[u] = Packed::at(dy[at] + i);
          at = next[at];
        }
      }
#pragma unroll
      for (int u = 0; u < kRowsAtOnce; ++u) {
        for (int j = 0; j < kCount && rows[u] >= 0; ++j) {
          sum[j] += load(values[u].element[j]);
        }
      }
    }
    auto total = Pack<R, kCount>::at(row + i);
    for (int j = 0; j < kCount; ++j) {
      total.element[j] += sum[j];
    }
    total.put(row + i);
  }
}

std::int64_t scatter_workspace(Context& /*ctx*/, const EmbeddingWeightGradArgs& args) {
  return 2 * args.dy.rows() * static_cast<std::int64_t>(sizeof(std::int32_t));
}

void run_scatter(Context& /*ctx*/, const EmbeddingWeightGradArgs& args, std::byte* workspace) {
  const std::int64_t tokens = args.dy.rows();
  auto* next = reinterpret_cast<std::int32_t*>(workspace);
  std::int32_t* first = next + tokens;
  const auto* ids = elements<const std::int32_t>(args.ids);
  launch("embedding_weight_grad", chain_kernel, static_cast<unsigned>(tokens), kSearchers, 0, next, first, ids,
         static_cast<int>(tokens), args.d_table.rows(), args.skipped_id);
  with_element(args.dy.dtype(), [&]<typename T>() {
    with_width<T>(wide(args.dy) && wide(args.d_table), [&]<int kCount>() {
      launch("embedding_weight_grad", scatter_kernel<T, kCount>, static_cast<unsigned>(tokens),
             threads_for(args.dy.columns() / kCount), 0, Rows<Real<T>>(args.d_table), Rows<const T>(args.dy), ids, next,
             first, args.dy.columns());
    });
  });
}

constexpr Implementation<EmbeddingArgs> kGather[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_gather, prepare_table},
};
constexpr Implementation<EmbeddingWeightGradArgs> kScatter[] = {
    {"chains", Backend::kCuda, Isa::kAvx2, nullptr, scatter_workspace, run_scatter},
};

}  // namespace

ImplementationList<EmbeddingArgs> embedding_list() {
  return kGather;
}

ImplementationList<EmbeddingWeightGradArgs> embedding_weight_grad_list() {
  return kScatter;
}

}  // namespace caravan::ops::cuda

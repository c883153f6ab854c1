// Forward: a block a tile of queries of one head, over the keys that its ranges let it see (Dao et al. 2022).
#include "caravan/ops/cuda/attention_tiles.h"

#include "caravan/ops/cuda/attention_tiles.cuh"

namespace caravan::ops::cuda {
namespace {

template <typename T>
struct Forward : AttentionInputs<T> {
  Rows<T> out;
  Real<T>* lse;  // [queries, heads], or nullptr

  Forward(const AttentionArgs& args, const DeviceRanges& lists)
      : AttentionInputs<T>(args, lists), out(args.out), lse(elements<Real<T>>(args.lse)) {}
};

template <typename T, int kRows>
__global__ void forward_kernel(Forward<T> call) {
  using R = Real<T>;
  CARAVAN_DYNAMIC_SHARED(R, shared);
  const int dim = call.head_dim;
  R* const q = shared;
  R* const k = q + kRows * (dim + 1);
  R* const v = k + kRows * (dim + 1);
  R* const o = v + kRows * (dim + 1);
  R* const weights = o + kRows * (dim + 1);

  const QueryPlace<kRows> place(call);
  const auto& [tile, head, row, part, column, kv_column, mine] = place;
  if (tile.begin >= tile.end) {
    return;
  }
  clear_tile<kRows>(o, dim);
  if (tile.first < tile.last) {
    load_tile<kRows>(q, call.query, tile.begin, tile.end, column, dim);
  }
  R top = -INFINITY;
  R sum = 0;
  for (int r = tile.first; r < tile.last; ++r) {
    const AttentionRange range = call.ranges[r];
    const std::int64_t end = place.keys_end(range);
    for (std::int64_t begin = range.key_begin; begin < end; begin += kRows) {
      __syncthreads();  // what stood there is used
      load_tile<kRows>(k, call.key, begin, end, kv_column, dim);
      load_tile<kRows>(v, call.value, begin, end, kv_column, dim);
      __syncthreads();
      R score[kRows / kPerRow];
      R highest = -INFINITY;
      for (int j = 0; j < kRows / kPerRow; ++j) {
        const int other = part + j * kPerRow;
        const bool seen = mine < tile.end && sees(range, mine, begin + other) && begin + other < end;
        score[j] = seen ? dot(q + row * (dim + 1), k + other * (dim + 1), dim) * call.scale : -INFINITY;
        highest = score[j] > highest ? score[j] : highest;
      }
      for (int distance = 1; distance < kPerRow; distance *= 2) {
        const R other = __shfl_xor_sync(kAllLanes, highest, distance);
        highest = other > highest ? other : highest;
      }
      const R now = highest > top ? highest : top;
      const R before = top == -INFINITY ? R{0} : exponential(top - now);
      R fresh = 0;
      for (int j = 0; j < kRows / kPerRow; ++j) {
        const R weight = score[j] == -INFINITY ? R{0} : exponential(score[j] - now);
        weights[row * (kRows + 1) + part + j * kPerRow] = weight;
        fresh += weight;
      }
      for (int distance = 1; distance < kPerRow; distance *= 2) {
        fresh += __shfl_xor_sync(kAllLanes, fresh, distance);
      }
      sum = sum * before + fresh;
      top = now;
      for (int i = part; i < dim; i += kPerRow) {
        o[row * (dim + 1) + i] *= before;
      }
      __syncwarp();  // a row's threads stand in one warp
      add_weighted<kRows>(o + row * (dim + 1), weights + row * (kRows + 1), v, dim, part);
    }
  }
  __syncthreads();
  if (mine < tile.end) {
    // Comparisons above pass over a NaN; the sum holds it.  Scores that are all minus infinity have no softmax either.
    const bool sees_any = tile.first < tile.last;  // a range's first key is seen by all of its queries
    sum = sees_any && top == -INFINITY ? static_cast<R>(NAN) : sum;
    for (int i = part; i < dim; i += kPerRow) {
      call.out[mine][column + i] = round_to<T>(sees_any ? o[row * (dim + 1) + i] / sum : R{0});
    }
    if (call.lse != nullptr && part == 0) {
      call.lse[mine * call.heads + head] = sees_any ? top + logarithm(sum) : -INFINITY;
    }
  }
}

}  // namespace

void prepare_tiles(Context& ctx, const AttentionArgs& args) {
  device_ranges(ctx, *args.ranges, args.query.rows());
}

std::int64_t tiles_workspace(Context& /*ctx*/, const AttentionArgs& /*args*/) {
  return 0;
}

void run_tiles(Context& ctx, const AttentionArgs& args, std::byte* /*workspace*/) {
  const DeviceRanges& lists = device_ranges(ctx, *args.ranges, args.query.rows());
  with_element(args.query.dtype(), [&]<typename T>() {
    const Forward<T> call(args, lists);
    with_rows_that_fit<T>(ctx, 4, 1, args.heads.head_dim, [&]<int kRows>(std::size_t bytes) {
      launch("attention", forward_kernel<T, kRows>, QueryPlace<kRows>::grid(lists, call.heads), kRows * kPerRow, bytes,
             call);
    });
  });
}

}  // namespace caravan::ops::cuda

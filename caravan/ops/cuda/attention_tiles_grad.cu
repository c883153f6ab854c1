// Backward (Dao et al. 2022, algorithm 4), each gradient by a walk of its own so that nothing is added by atomics:
//   D[q, h] = <d_out, out>,   P = exp(scale q k - lse),   dS = P (d_out v - D)
//   d_query = scale dS key,   d_key = scale dS^T query,   d_value = P^T d_out
#include "caravan/ops/cuda/attention_tiles.cuh"
#include "caravan/ops/cuda/attention_tiles.h"

namespace caravan::ops::cuda {
namespace {

template <typename T>
struct Backward : AttentionInputs<T> {
  Rows<T> d_query, d_key, d_value;
  Rows<const T> d_out, out;
  const Real<T>* lse;  // [queries, heads]
  Real<T>* delta;      // [queries, heads]: D
  std::int64_t queries, keys;

  Backward(const AttentionGradArgs& args, const DeviceRanges& lists, std::byte* workspace)
      : AttentionInputs<T>(args, lists),
        d_query(args.d_query),
        d_key(args.d_key),
        d_value(args.d_value),
        d_out(args.d_out),
        out(args.out),
        lse(elements<const Real<T>>(args.lse)),
        delta(reinterpret_cast<Real<T>*>(workspace)),
        queries(args.query.rows()),
        keys(args.key.rows()) {}
};

// A warp a query and head.
template <typename T>
__global__ void delta_kernel(Backward<T> call) {
  using R = Real<T>;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (at >= call.queries * call.heads) {
    return;
  }
  const std::int64_t query = at / call.heads;
  const std::int64_t column = at % call.heads * call.head_dim;
  R sum = 0;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < call.head_dim; i += kWarp) {
    sum += load(call.d_out[query][column + i]) * load(call.out[query][column + i]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) {
    call.delta[at] = sum;
  }
}

template <typename T, int kRows>
__global__ void query_kernel(Backward<T> call) {
  using R = Real<T>;
  CARAVAN_DYNAMIC_SHARED(R, shared);
  const int dim = call.head_dim;
  R* const q = shared;
  R* const d_o = q + kRows * (dim + 1);
  R* const k = d_o + kRows * (dim + 1);
  R* const v = k + kRows * (dim + 1);
  R* const d_q = v + kRows * (dim + 1);
  R* const slopes = d_q + kRows * (dim + 1);

  const QueryPlace<kRows> place(call);
  const auto& [tile, head, row, part, column, kv_column, mine] = place;
  if (tile.begin >= tile.end) {
    return;
  }
  const bool there = mine < tile.end && tile.first < tile.last;
  const R lse = there ? call.lse[mine * call.heads + head] : R{0};
  const R delta = there ? call.delta[mine * call.heads + head] : R{0};

  clear_tile<kRows>(d_q, dim);
  if (tile.first < tile.last) {
    load_tile<kRows>(q, call.query, tile.begin, tile.end, column, dim);
    load_tile<kRows>(d_o, call.d_out, tile.begin, tile.end, column, dim);
  }
  for (int r = tile.first; r < tile.last; ++r) {
    const AttentionRange range = call.ranges[r];
    const std::int64_t end = place.keys_end(range);
    for (std::int64_t begin = range.key_begin; begin < end; begin += kRows) {
      __syncthreads();
      load_tile<kRows>(k, call.key, begin, end, kv_column, dim);
      load_tile<kRows>(v, call.value, begin, end, kv_column, dim);
      __syncthreads();
      for (int j = 0; j < kRows / kPerRow; ++j) {
        const int other = part + j * kPerRow;
        R slope = 0;
        if (there && begin + other < end && sees(range, mine, begin + other)) {
          const R score = dot(q + row * (dim + 1), k + other * (dim + 1), dim) * call.scale;
          const R weight = exponential(score - lse);
          slope = weight * (dot(d_o + row * (dim + 1), v + other * (dim + 1), dim) - delta);
        }
        slopes[row * (kRows + 1) + other] = slope;
      }
      __syncwarp();
      add_weighted<kRows>(d_q + row * (dim + 1), slopes + row * (kRows + 1), k, dim, part);
    }
  }
  __syncthreads();
  if (mine < tile.end) {
    for (int i = part; i < dim; i += kPerRow) {
      call.d_query[mine][column + i] = round_to<T>(d_q[row * (dim + 1) + i] * call.scale);
    }
  }
}

// A block a tile of keys of one kv head, over all queries of its group's heads that see one of them.
template <typename T, int kRows>
__global__ void key_kernel(Backward<T> call) {
  using R = Real<T>;
  CARAVAN_DYNAMIC_SHARED(R, shared);
  const int dim = call.head_dim;
  R* const k = shared;
  R* const v = k + kRows * (dim + 1);
  R* const q = v + kRows * (dim + 1);
  R* const d_o = q + kRows * (dim + 1);
  R* const d_k = d_o + kRows * (dim + 1);
  R* const d_v = d_k + kRows * (dim + 1);
  R* const weights = d_v + kRows * (dim + 1);
  R* const slopes = weights + kRows * (kRows + 1);

  const int group = call.heads / call.kv_heads;
  const int kv_head = static_cast<int>(blockIdx.y);
  const std::int64_t tile_begin = static_cast<std::int64_t>(blockIdx.x) * kRows;
  const std::int64_t tile_end = tile_begin + kRows < call.keys ? tile_begin + kRows : call.keys;
  const std::int64_t kv_column = static_cast<std::int64_t>(kv_head) * dim;
  const int row = static_cast<int>(threadIdx.x) / kPerRow;
  const int part = static_cast<int>(threadIdx.x) % kPerRow;
  const std::int64_t mine = tile_begin + row;

  clear_tile<kRows>(d_k, dim);
  clear_tile<kRows>(d_v, dim);
  for (int r = 0; r < call.range_count; ++r) {
    const AttentionRange range = call.ranges[r];
    const std::int64_t key_begin = tile_begin > range.key_begin ? tile_begin : range.key_begin;
    const std::int64_t key_end = tile_end < range.key_end ? tile_end : range.key_end;
    if (key_begin >= key_end) {
      continue;
    }
    // Keys of the tile that this range holds; another range may hold the others, and padding rows may be NaN.
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < kRows * dim; at += kRows * kPerRow) {
      const int i = at % dim;
      const std::int64_t at_row = tile_begin + at / dim;
      const bool inside = at_row >= key_begin && at_row < key_end;
      k[at / dim * (dim + 1) + i] = inside ? load(call.key[at_row][kv_column + i]) : R{0};
      v[at / dim * (dim + 1) + i] = inside ? load(call.value[at_row][kv_column + i]) : R{0};
    }
    const bool there = mine >= key_begin && mine < key_end;
    // The first query that sees the tile's first key.
    const std::int64_t below = key_begin - range.key_begin - range.diagonal;
    const std::int64_t from = range.query_begin + (below > 0 ? below : 0);
    for (int h = 0; h < group; ++h) {
      const int head = kv_head * group + h;
      const std::int64_t column = static_cast<std::int64_t>(head) * dim;
      for (std::int64_t begin = from; begin < range.query_end; begin += kRows) {
        __syncthreads();
        load_tile<kRows>(q, call.query, begin, range.query_end, column, dim);
        load_tile<kRows>(d_o, call.d_out, begin, range.query_end, column, dim);
        __syncthreads();
        for (int j = 0; j < kRows / kPerRow; ++j) {
          const int other = part + j * kPerRow;
          const std::int64_t query = begin + other;
          R weight = 0;
          R slope = 0;
          if (there && query < range.query_end && sees(range, query, mine)) {
            const R score = dot(q + other * (dim + 1), k + row * (dim + 1), dim) * call.scale;
            weight = exponential(score - call.lse[query * call.heads + head]);
            slope = weight *
                    (dot(d_o + other * (dim + 1), v + row * (dim + 1), dim) - call.delta[query * call.heads + head]);
          }
          weights[row * (kRows + 1) + other] = weight;
          slopes[row * (kRows + 1) + other] = slope;
        }
        __syncwarp();
        add_weighted<kRows>(d_v + row * (dim + 1), weights + row * (kRows + 1), d_o, dim, part);
        add_weighted<kRows>(d_k + row * (dim + 1), slopes + row * (kRows + 1), q, dim, part);
      }
    }
  }
  __syncthreads();
  if (mine < tile_end) {
    for (int i = part; i < dim; i += kPerRow) {
      call.d_key[mine][kv_column + i] = round_to<T>(d_k[row * (dim + 1) + i] * call.scale);
      call.d_value[mine][kv_column + i] = round_to<T>(d_v[row * (dim + 1) + i]);
    }
  }
}

}  // namespace

void prepare_tiles_grad(Context& ctx, const AttentionGradArgs& args) {
  device_ranges(ctx, *args.ranges, args.query.rows());
}

std::int64_t tiles_grad_workspace(Context& /*ctx*/, const AttentionGradArgs& args) {
  return args.query.rows() * args.heads.heads * size_of(args.lse.dtype());
}

void run_tiles_grad(Context& ctx, const AttentionGradArgs& args, std::byte* workspace) {
  constexpr unsigned kThreads = 256;
  const DeviceRanges& lists = device_ranges(ctx, *args.ranges, args.query.rows());
  with_element(args.query.dtype(), [&]<typename T>() {
    const Backward<T> call(args, lists, workspace);
    launch("attention_grad", delta_kernel<T>, blocks_for(call.queries * call.heads, kThreads / kWarp), kThreads, 0,
           call);
    with_rows_that_fit<T>(ctx, 5, 1, args.heads.head_dim, [&]<int kRows>(std::size_t bytes) {
      launch("attention_grad", query_kernel<T, kRows>, QueryPlace<kRows>::grid(lists, call.heads), kRows * kPerRow,
             bytes, call);
    });
    with_rows_that_fit<T>(ctx, 6, 2, args.heads.head_dim, [&]<int kRows>(std::size_t bytes) {
      launch("attention_grad", key_kernel<T, kRows>,
             dim3(blocks_for(call.keys, kRows), static_cast<unsigned>(call.kv_heads)), kRows * kPerRow, bytes, call);
    });
  });
}

}  // namespace caravan::ops::cuda

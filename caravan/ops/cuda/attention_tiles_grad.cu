// Backward (Dao et al. 2022, algorithm 4), each gradient by a walk of its own so that nothing is added by atomics:
//   D[q, h] = <d_out, out>,   P = exp(scale q k - lse),   dS = P (d_out v - D)
//   d_query = scale dS key,   d_key = scale dS^T query,   d_value = P^T d_out
#include "caravan/ops/cuda/attention_tiles.cuh"
#include "caravan/ops/cuda/attention_tiles.h"

namespace caravan::ops::cuda {
namespace {

template <typename T>
struct Backward {
  Rows<T> d_query, d_key, d_value;
  Rows<const T> d_out, query, key, value, out;
  const Real<T>* lse;  // [queries, heads]
  Real<T>* delta;      // [queries, heads]: D
  const AttentionRange* ranges;
  const QueryTile* tiles;
  int range_count, heads, kv_heads, head_dim;
  std::int64_t queries, keys;
  Real<T> scale;
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

template <typename T>
__global__ void query_kernel(Backward<T> call) {
  using R = Real<T>;
  CARAVAN_DYNAMIC_SHARED(R, shared);
  const int dim = call.head_dim;
  R* const q = shared;
  R* const d_o = q + kRows<T> * (dim + 1);
  R* const k = d_o + kRows<T> * (dim + 1);
  R* const v = k + kRows<T> * (dim + 1);
  R* const d_q = v + kRows<T> * (dim + 1);
  R* const slopes = d_q + kRows<T> * (dim + 1);

  const QueryTile tile = part_of<T>(call.tiles);
  if (tile.begin >= tile.end) {
    return;
  }
  const int head = static_cast<int>(blockIdx.y);
  const int kv_head = head / (call.heads / call.kv_heads);
  const std::int64_t column = static_cast<std::int64_t>(head) * dim;
  const std::int64_t kv_column = static_cast<std::int64_t>(kv_head) * dim;
  const int row = static_cast<int>(threadIdx.x) / kPerRow;
  const int part = static_cast<int>(threadIdx.x) % kPerRow;
  const std::int64_t mine = tile.begin + row;
  const bool there = mine < tile.end && tile.first < tile.last;
  const R lse = there ? call.lse[mine * call.heads + head] : R{0};
  const R delta = there ? call.delta[mine * call.heads + head] : R{0};

  for (int at = static_cast<int>(threadIdx.x); at < kRows<T> * (dim + 1); at += kTileThreads<T>) {
    d_q[at] = 0;
  }
  if (tile.first < tile.last) {
    load_tile<T>(q, call.query, tile.begin, tile.end, column, dim);
    load_tile<T>(d_o, call.d_out, tile.begin, tile.end, column, dim);
  }
  for (int r = tile.first; r < tile.last; ++r) {
    const AttentionRange range = call.ranges[r];
    const std::int64_t reach = range.key_begin + (tile.end - 1 - range.query_begin) + range.diagonal + 1;
    const std::int64_t end = reach < range.key_end ? reach : range.key_end;
    for (std::int64_t begin = range.key_begin; begin < end; begin += kRows<T>) {
      __syncthreads();
      load_tile<T>(k, call.key, begin, end, kv_column, dim);
      load_tile<T>(v, call.value, begin, end, kv_column, dim);
      __syncthreads();
      for (int j = 0; j < kRows<T> / kPerRow; ++j) {
        const int other = part + j * kPerRow;
        R slope = 0;
        if (there && begin + other < end && sees(range, mine, begin + other)) {
          const R score = dot(q + row * (dim + 1), k + other * (dim + 1), dim) * call.scale;
          const R weight = exponential(score - lse);
          slope = weight * (dot(d_o + row * (dim + 1), v + other * (dim + 1), dim) - delta);
        }
        slopes[row * (kRows<T> + 1) + other] = slope;
      }
      __syncwarp();
      add_weighted(d_q + row * (dim + 1), slopes + row * (kRows<T> + 1), k, dim, part);
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
template <typename T>
__global__ void key_kernel(Backward<T> call) {
  using R = Real<T>;
  CARAVAN_DYNAMIC_SHARED(R, shared);
  const int dim = call.head_dim;
  R* const k = shared;
  R* const v = k + kRows<T> * (dim + 1);
  R* const q = v + kRows<T> * (dim + 1);
  R* const d_o = q + kRows<T> * (dim + 1);
  R* const d_k = d_o + kRows<T> * (dim + 1);
  R* const d_v = d_k + kRows<T> * (dim + 1);
  R* const weights = d_v + kRows<T> * (dim + 1);
  R* const slopes = weights + kRows<T> * (kRows<T> + 1);

  const int group = call.heads / call.kv_heads;
  const int kv_head = static_cast<int>(blockIdx.y);
  const std::int64_t tile_begin = static_cast<std::int64_t>(blockIdx.x) * kRows<T>;
  const std::int64_t tile_end = tile_begin + kRows<T> < call.keys ? tile_begin + kRows<T> : call.keys;
  const std::int64_t kv_column = static_cast<std::int64_t>(kv_head) * dim;
  const int row = static_cast<int>(threadIdx.x) / kPerRow;
  const int part = static_cast<int>(threadIdx.x) % kPerRow;
  const std::int64_t mine = tile_begin + row;

  for (int at = static_cast<int>(threadIdx.x); at < kRows<T> * (dim + 1); at += kTileThreads<T>) {
    d_k[at] = 0;
    d_v[at] = 0;
  }
  for (int r = 0; r < call.range_count; ++r) {
    const AttentionRange range = call.ranges[r];
    const std::int64_t key_begin = tile_begin > range.key_begin ? tile_begin : range.key_begin;
    const std::int64_t key_end = tile_end < range.key_end ? tile_end : range.key_end;
    if (key_begin >= key_end) {
      continue;
    }
    // Keys of the tile that this range holds; another range may hold the others, and padding rows may be NaN.
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < kRows<T> * dim; at += kTileThreads<T>) {
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
      for (std::int64_t begin = from; begin < range.query_end; begin += kRows<T>) {
        __syncthreads();
        load_tile<T>(q, call.query, begin, range.query_end, column, dim);
        load_tile<T>(d_o, call.d_out, begin, range.query_end, column, dim);
        __syncthreads();
        for (int j = 0; j < kRows<T> / kPerRow; ++j) {
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
          weights[row * (kRows<T> + 1) + other] = weight;
          slopes[row * (kRows<T> + 1) + other] = slope;
        }
        __syncwarp();
        add_weighted(d_v + row * (dim + 1), weights + row * (kRows<T> + 1), d_o, dim, part);
        add_weighted(d_k + row * (dim + 1), slopes + row * (kRows<T> + 1), q, dim, part);
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

template <typename T>
Backward<T> call_of(const AttentionGradArgs& args, const DeviceRanges& lists, std::byte* workspace) {
  Backward<T> call;
  call.d_query = Rows<T>(args.d_query);
  call.d_key = Rows<T>(args.d_key);
  call.d_value = Rows<T>(args.d_value);
  call.d_out = Rows<const T>(args.d_out);
  call.query = Rows<const T>(args.query);
  call.key = Rows<const T>(args.key);
  call.value = Rows<const T>(args.value);
  call.out = Rows<const T>(args.out);
  call.lse = elements<const Real<T>>(args.lse);
  call.delta = reinterpret_cast<Real<T>*>(workspace);
  call.ranges = lists.device_ranges();
  call.tiles = lists.device_tiles();
  call.range_count = static_cast<int>(args.ranges->size());
  call.heads = static_cast<int>(args.heads.heads);
  call.kv_heads = static_cast<int>(args.heads.kv_heads);
  call.head_dim = static_cast<int>(args.heads.head_dim);
  call.queries = args.query.rows();
  call.keys = args.key.rows();
  call.scale = static_cast<Real<T>>(args.scale);
  return call;
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
    const Backward<T> call = call_of<T>(args, lists, workspace);
    launch("attention_grad", delta_kernel<T>, blocks_for(call.queries * call.heads, kThreads / kWarp), kThreads, 0,
           call);
    launch("attention_grad", query_kernel<T>,
           dim3(static_cast<unsigned>(lists.tiles) * kParts<T>, static_cast<unsigned>(call.heads)), kTileThreads<T>,
           shared_bytes<T>(5, 1, args.heads.head_dim), call);
    launch("attention_grad", key_kernel<T>, dim3(blocks_for(call.keys, kRows<T>), static_cast<unsigned>(call.kv_heads)),
           kTileThreads<T>, shared_bytes<T>(6, 2, args.heads.head_dim), call);
  });
}

}  // namespace caravan::ops::cuda

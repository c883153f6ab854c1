// Forward: a block a tile of queries of one head, over the keys that its ranges let it see (Dao et al. 2022).
#include "caravan/ops/cuda/attention_tiles.h"

#include "caravan/ops/cuda/attention_tiles.cuh"

namespace caravan::ops::cuda {
namespace {

template <typename T>
struct Forward {
  Rows<T> out;
  Rows<const T> query, key, value;
  Real<T>* lse;  // [queries, heads], or nullptr
  const AttentionRange* ranges;
  const QueryTile* tiles;
  int heads, kv_heads, head_dim;
  Real<T> scale;
};

template <typename T>
__global__ void forward_kernel(Forward<T> call) {
  using R = Real<T>;
  CARAVAN_DYNAMIC_SHARED(R, shared);
  const int dim = call.head_dim;
  R* const q = shared;
  R* const k = q + kRows<T> * (dim + 1);
  R* const v = k + kRows<T> * (dim + 1);
  R* const o = v + kRows<T> * (dim + 1);
  R* const weights = o + kRows<T> * (dim + 1);

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

  for (int at = static_cast<int>(threadIdx.x); at < kRows<T> * (dim + 1); at += kTileThreads<T>) {
    o[at] = 0;
  }
  if (tile.first < tile.last) {
    load_tile<T>(q, call.query, tile.begin, tile.end, column, dim);
  }
  R top = -INFINITY;
  R sum = 0;
  for (int r = tile.first; r < tile.last; ++r) {
    const AttentionRange range = call.ranges[r];
    // The last key that the tile's last query sees.
    const std::int64_t reach = range.key_begin + (tile.end - 1 - range.query_begin) + range.diagonal + 1;
    const std::int64_t end = reach < range.key_end ? reach : range.key_end;
    for (std::int64_t begin = range.key_begin; begin < end; begin += kRows<T>) {
      __syncthreads();  // what stood there is used
      load_tile<T>(k, call.key, begin, end, kv_column, dim);
      load_tile<T>(v, call.value, begin, end, kv_column, dim);
      __syncthreads();
      R score[kRows<T> / kPerRow];
      R highest = -INFINITY;
      for (int j = 0; j < kRows<T> / kPerRow; ++j) {
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
      for (int j = 0; j < kRows<T> / kPerRow; ++j) {
        const R weight = score[j] == -INFINITY ? R{0} : exponential(score[j] - now);
        weights[row * (kRows<T> + 1) + part + j * kPerRow] = weight;
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
      add_weighted(o + row * (dim + 1), weights + row * (kRows<T> + 1), v, dim, part);
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
    Forward<T> call;
    call.out = Rows<T>(args.out);
    call.query = Rows<const T>(args.query);
    call.key = Rows<const T>(args.key);
    call.value = Rows<const T>(args.value);
    call.lse = elements<Real<T>>(args.lse);
    call.ranges = lists.device_ranges();
    call.tiles = lists.device_tiles();
    call.heads = static_cast<int>(args.heads.heads);
    call.kv_heads = static_cast<int>(args.heads.kv_heads);
    call.head_dim = static_cast<int>(args.heads.head_dim);
    call.scale = static_cast<Real<T>>(args.scale);
    launch("attention", forward_kernel<T>,
           dim3(static_cast<unsigned>(lists.tiles) * kParts<T>, static_cast<unsigned>(args.heads.heads)),
           kTileThreads<T>, shared_bytes<T>(4, 1, args.heads.head_dim), call);
  });
}

}  // namespace caravan::ops::cuda

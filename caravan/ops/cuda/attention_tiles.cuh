// What the forward and backward kernels of attention_tiles share.
//
// A block holds a tile of kRows rows (queries, or in one kernel keys) and walks over tiles of the others, all in shared
// memory as Reals, rows one element longer than head_dim so that neighbouring rows fall into different banks.  kPerRow
// threads work on each of the block's rows: for scores they share its opposite rows among them, for outputs its elements.
#pragma once

#include "caravan/ops/cuda/attention_plans.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {

inline constexpr int kPerRow = 4;
inline constexpr int kFewestRows = kWarp / kPerRow;  // of a tile: a whole warp

// What all kernels of a call read.
template <typename T>
struct AttentionInputs {
  Rows<const T> query, key, value;
  const AttentionRange* ranges;
  const QueryTile* tiles;
  int range_count, heads, kv_heads, head_dim;
  Real<T> scale;

  template <typename Args>
  AttentionInputs(const Args& args, const DeviceRanges& lists)
      : query(args.query),
        key(args.key),
        value(args.value),
        ranges(lists.device_ranges()),
        tiles(lists.device_tiles()),
        range_count(static_cast<int>(lists.ranges.size())),
        heads(static_cast<int>(args.heads.heads)),
        kv_heads(static_cast<int>(args.heads.kv_heads)),
        head_dim(static_cast<int>(args.heads.head_dim)),
        scale(static_cast<Real<T>>(args.scale)) {}
};

// Where a thread of a block of queries stands: its part of a tile of the list, its head, its row and its share of the row.
template <int kRows>
struct QueryPlace {
  QueryTile tile;                  // empty where the list's tile is shorter
  int head, row, part;             // row and part: of the block's
  std::int64_t column, kv_column;  // where the head begins in a row
  std::int64_t mine;               // the query of this thread

  template <typename T>
  __device__ explicit QueryPlace(const AttentionInputs<T>& call)
      : tile(call.tiles[blockIdx.x / kParts]),
        head(static_cast<int>(blockIdx.y)),
        row(static_cast<int>(threadIdx.x) / kPerRow),
        part(static_cast<int>(threadIdx.x) % kPerRow),
        column(static_cast<std::int64_t>(head) * call.head_dim),
        kv_column(static_cast<std::int64_t>(head / (call.heads / call.kv_heads)) * call.head_dim) {
    tile.begin += static_cast<std::int32_t>(blockIdx.x % kParts) * kRows;
    tile.end = tile.begin + kRows < tile.end ? tile.begin + kRows : tile.end;
    mine = tile.begin + row;
  }

  // Behind the last key of the range that the tile's last query sees.
  __device__ std::int64_t keys_end(const AttentionRange& range) const {
    const std::int64_t reach = range.key_begin + (tile.end - 1 - range.query_begin) + range.diagonal + 1;
    return reach < range.key_end ? reach : range.key_end;
  }

  static constexpr int kParts = static_cast<int>(kQueryTile) / kRows;
  static dim3 grid(const DeviceRanges& lists, int heads) {
    return dim3(static_cast<unsigned>(lists.tiles) * kParts, static_cast<unsigned>(heads));
  }
};

// Rows [begin, begin + kRows) of one head to shared memory; rows from `end` on become zeros and are not read.
template <int kRows, typename T>
__device__ void load_tile(Real<T>* tile, const Rows<const T>& from, std::int64_t begin, std::int64_t end,
                          std::int64_t column, int head_dim) {
  for (int at = static_cast<int>(threadIdx.x); at < kRows * head_dim; at += kRows * kPerRow) {
    const int row = at / head_dim;
    const int i = at % head_dim;
    tile[row * (head_dim + 1) + i] = begin + row < end ? load(from[begin + row][column + i]) : Real<T>{0};
  }
}

template <int kRows, typename R>
__device__ void clear_tile(R* tile, int head_dim) {
  for (int at = static_cast<int>(threadIdx.x); at < kRows * (head_dim + 1); at += kRows * kPerRow) {
    tile[at] = 0;
  }
}

template <typename R>
__device__ R dot(const R* a, const R* b, int head_dim) {
  R sum = 0;
  for (int i = 0; i < head_dim; ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

// to[i] += sum over the tile's rows of weight[row] * tile[row][i], of this thread's elements.
template <int kRows, typename R>
__device__ void add_weighted(R* to, const R* weight, const R* tile, int head_dim, int part) {
  for (int i = part; i < head_dim; i += kPerRow) {
    R sum = to[i];
    for (int row = 0; row < kRows; ++row) {
      sum += weight[row] * tile[row * (head_dim + 1) + i];
    }
    to[i] = sum;
  }
}

// Whether query row q sees key row k of a range, both inside it.
__device__ inline bool sees(const AttentionRange& range, std::int64_t q, std::int64_t k) {
  return k < range.key_end && k - range.key_begin <= (q - range.query_begin) + range.diagonal;
}

// Calls body.operator()<kRows>(bytes) with the largest tiles of which `tiles`, and squares of weights of which `squares`, fit
// into the shared memory that the device gives a block.  Throws UnsupportedError where not even the smallest do.
template <typename T, typename Body>
void with_rows_that_fit(Context& ctx, std::int64_t tiles, std::int64_t squares, std::int64_t head_dim,
                        const Body& body) {
  const auto bytes = [&](std::int64_t rows) {
    return (tiles * rows * (head_dim + 1) + squares * rows * (rows + 1)) *
           static_cast<std::int64_t>(sizeof(Real<T>));
  };
  const std::int64_t most = state(ctx).shared_bytes_of_block;
  constexpr int kMost = static_cast<int>(kQueryTile) / (sizeof(T) == 8 ? 2 : 1);
  if (bytes(kMost) <= most) {
    return body.template operator()<kMost>(static_cast<std::size_t>(bytes(kMost)));
  }
  if (kMost / 2 > kFewestRows && bytes(kMost / 2) <= most) {
    return body.template operator()<kMost / 2>(static_cast<std::size_t>(bytes(kMost / 2)));
  }
  if (bytes(kFewestRows) <= most) {
    return body.template operator()<kFewestRows>(static_cast<std::size_t>(bytes(kFewestRows)));
  }
  throw_no_tile(head_dim, bytes(kFewestRows), most, sizeof(T) == 8);
}

}  // namespace caravan::ops::cuda

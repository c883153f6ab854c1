// What the forward and backward kernels of attention_tiles share.
//
// A block holds a tile of kRows<T> rows (queries, or in one kernel keys) and walks over tiles of the others, all in
// shared memory as Reals, rows one element longer than head_dim so that neighbouring rows fall into different banks.
// kPerRow threads work on each of the block's rows: for scores they share its opposite rows among them, for outputs its
// elements.
#pragma once

#include "caravan/ops/cuda/attention_plans.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {

// Half of kQueryTile for f64, so that six tiles of 256 elements fit into a multiprocessor.
template <typename T>
inline constexpr int kRows = static_cast<int>(kQueryTile) / (sizeof(T) == 8 ? 2 : 1);
template <typename T>
inline constexpr int kParts = static_cast<int>(kQueryTile) / kRows<T>;  // of a tile of the list
inline constexpr int kPerRow = 4;
template <typename T>
inline constexpr int kTileThreads = kRows<T>* kPerRow;

// Rows [begin, begin + kRows<T>) of one head to shared memory; rows from `end` on become zeros and are not read.
template <typename T>
__device__ void load_tile(Real<T>* tile, const Rows<const T>& from, std::int64_t begin, std::int64_t end,
                          std::int64_t column, int head_dim) {
  for (int at = static_cast<int>(threadIdx.x); at < kRows<T> * head_dim; at += kTileThreads<T>) {
    const int row = at / head_dim;
    const int i = at % head_dim;
    tile[row * (head_dim + 1) + i] = begin + row < end ? load(from[begin + row][column + i]) : Real<T>{0};
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
template <typename R>
__device__ void add_weighted(R* to, const R* weight, const R* tile, int head_dim, int part) {
  for (int i = part; i < head_dim; i += kPerRow) {
    R sum = to[i];
    for (int row = 0; row < kRows<R>; ++row) {
      sum += weight[row] * tile[row * (head_dim + 1) + i];
    }
    to[i] = sum;
  }
}

// Whether query row q sees key row k of a range, both inside it.
__device__ inline bool sees(const AttentionRange& range, std::int64_t q, std::int64_t k) {
  return k < range.key_end && k - range.key_begin <= (q - range.query_begin) + range.diagonal;
}

// Bytes of shared memory for `tiles` tiles and `weights` squares of weights.
template <typename T>
std::size_t shared_bytes(std::int64_t tiles, std::int64_t weights, std::int64_t head_dim) {
  const std::int64_t reals = tiles * kRows<T> * (head_dim + 1) + weights * kRows<T> * (kRows<T> + 1);
  return static_cast<std::size_t>(reals) * sizeof(Real<T>);
}

// The block's part of a tile of the list: empty where the tile is shorter.
template <typename T>
__device__ QueryTile part_of(const QueryTile* tiles) {
  QueryTile tile = tiles[blockIdx.x / kParts<T>];
  tile.begin += static_cast<std::int32_t>(blockIdx.x % kParts<T>) * kRows<T>;
  tile.end = tile.begin + kRows<T> < tile.end ? tile.begin + kRows<T> : tile.end;
  return tile;
}

}  // namespace caravan::ops::cuda

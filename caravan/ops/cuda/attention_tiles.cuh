// What the forward and backward kernels of attention_tiles share.
//
// A block holds a tile of kQueryTile rows (queries, or in one kernel keys) and walks over tiles of the others, all in
// shared memory as Reals, rows one element longer than head_dim so that neighbouring rows fall into different banks.
// kPerRow threads work on each of the block's rows: for scores they share its opposite rows among them, for outputs its
// elements.
#pragma once

#include <cmath>

#include "caravan/ops/cuda/attention_plans.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {

inline constexpr int kTile = static_cast<int>(kQueryTile);
inline constexpr int kPerRow = 4;
inline constexpr int kTileThreads = kTile * kPerRow;

__device__ inline float exponential_of(float value) {
  return expf(value);
}
__device__ inline double exponential_of(double value) {
  return exp(value);
}

// Rows [begin, begin + kTile) of one head to shared memory; rows from `end` on become zeros and are not read.
template <typename T>
__device__ void load_tile(Real<T>* tile, const Rows<const T>& from, std::int64_t begin, std::int64_t end,
                          std::int64_t column, int head_dim) {
  for (int at = static_cast<int>(threadIdx.x); at < kTile * head_dim; at += kTileThreads) {
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
    for (int row = 0; row < kTile; ++row) {
      sum += weight[row] * tile[row * (head_dim + 1) + i];
    }
    to[i] = sum;
  }
}

// Whether query row q sees key row k of a range, both inside it.
__device__ inline bool sees(const AttentionRange& range, std::int64_t q, std::int64_t k) {
  return k < range.key_end && k - range.key_begin <= (q - range.query_begin) + range.diagonal;
}

// Reals of one tile in shared memory.
inline std::int64_t tile_reals(std::int64_t head_dim) {
  return kTile * (head_dim + 1);
}
inline constexpr std::int64_t kWeightReals = kTile * (kTile + 1);

}  // namespace caravan::ops::cuda

// The backward of attention, block by block of keys (Dao et al. 2022, algorithm 4): five products a tile of queries and
// keys, of which two make scores and probabilities' gradients anew.
//
// d_key and d_value of a block are complete after all queries that see it; d_query grows in f32 sums, block by block.
#pragma once

#include "caravan/ops/cpu/kernels/attention_kernels.h"

namespace caravan::ops::cpu {
namespace {

// Query rows of a tile: with 64 keys its probabilities, their gradients and the rows of one factor fill a first cache.
constexpr int kGradQueries = 48;
static_assert(kAttentionGradKeys == kKeys);

// c[r][j] (+)= sum over k < count of a[r * a_row + k * a_step] b[k * b_stride + j], of floats or of pairs
template <typename T>
struct Factors {
  const T* a;
  std::int64_t a_row, a_step;
  const T* b;
  std::int64_t b_stride;
  std::int64_t count;
  float* c;
  std::int64_t c_stride;
  bool add;
};

template <int kRows, int kVectors, typename T>
void multiply_tile(const Factors<T>& f, std::int64_t row, std::int64_t column) {
  const T* a = f.a + row * f.a_row;
  const T* b = f.b + column;
  float* c = f.c + row * f.c_stride + column;
  Vec sums[kRows][kVectors];
  CARAVAN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    CARAVAN_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      sums[r][j] = f.add ? load(c + r * f.c_stride + j * kLanes) : zero();
    }
  }
  for (std::int64_t k = 0; k < f.count; ++k) {
    VectorOf<T> factors[kVectors];
    CARAVAN_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      factors[j] = load(b + k * f.b_stride + j * kLanes);
    }
    CARAVAN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const VectorOf<T> one = spread(a[r * f.a_row + k * f.a_step]);
      CARAVAN_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        sums[r][j] = fma(one, factors[j], sums[r][j]);
      }
    }
  }
  CARAVAN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    CARAVAN_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      store(c + r * f.c_stride + j * kLanes, sums[r][j]);
    }
  }
}

template <int kVectors, typename T>
void multiply_columns(const Factors<T>& f, std::int64_t rows, std::int64_t column) {
  std::int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) {
    multiply_tile<kTileRows, kVectors>(f, row, column);
  }
  switch (rows - row) {
    case 1:
      return multiply_tile<1, kVectors>(f, row, column);
    case 2:
      return multiply_tile<2, kVectors>(f, row, column);
    case 3:
      return multiply_tile<3, kVectors>(f, row, column);
    case 4:
      return multiply_tile<4, kVectors>(f, row, column);
    case 5:
      return multiply_tile<5, kVectors>(f, row, column);
    default:
      return;
  }
}

// All of c: `columns` is a multiple of kLanes.
template <typename T>
void multiply(const Factors<T>& f, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t column = 0; column < columns; column += kTileWidth) {
    switch (least(kTileVectors, (columns - column) / kLanes)) {
      case 1:
        multiply_columns<1>(f, rows, column);
        break;
      case 2:
        multiply_columns<2>(f, rows, column);
        break;
      case 3:
        multiply_columns<3>(f, rows, column);
        break;
      default:
        multiply_columns<kTileVectors>(f, rows, column);
        break;
    }
  }
}

// Where the pieces of a task's scratch begin, in floats.
struct GradScratch {
  std::int64_t wide, tall;
  std::int64_t keys, values, keys_across, values_across, d_keys, d_values;
  std::int64_t queries, d_outs, weights, d_scores, statistics, floats;
};

CARAVAN_INLINE GradScratch grad_layout_of(const AttentionGradShape& shape, std::int64_t rows) {
  GradScratch s{};
  s.wide = round_up(shape.head_dim, 16);
  s.tall = round_up(shape.head_dim, 8);
  std::int64_t at = 0;
  const auto take = [&](std::int64_t floats) {
    const std::int64_t here = at;
    at += round_up(floats, 16);  // a cache line
    return here;
  };
  s.keys = take(kKeys * s.wide);
  s.values = take(kKeys * s.wide);
  s.keys_across = take(s.tall * kKeys);
  s.values_across = take(s.tall * kKeys);
  s.d_keys = take(kKeys * s.wide);
  s.d_values = take(kKeys * s.wide);
  s.queries = take(kGradQueries * s.wide);
  s.d_outs = take(kGradQueries * s.wide);
  s.weights = take(kGradQueries * kKeys);
  s.d_scores = take(kGradQueries * kKeys);
  s.statistics = take(rows * (shape.heads / shape.kv_heads) * 2);
  s.floats = at;
  return s;
}

std::int64_t attention_grad_scratch(const AttentionGradShape& shape, std::int64_t rows) {
  return grad_layout_of(shape, rows).floats;
}

// n rows of one head as f32, [n][wide], the columns beyond head_dim 0.
template <typename E>
CARAVAN_INLINE void widen_head(const typename E::Stored* from, std::int64_t stride, std::int64_t n,
                               std::int64_t head_dim, std::int64_t wide, float* to) {
  for (std::int64_t row = 0; row < n; ++row) {
    const auto* x = from + row * stride;
    float* y = to + row * wide;
    std::int64_t i = 0;
    for (; i + kLanes <= head_dim; i += kLanes) {
      store(y + i, E::load(x + i));
    }
    for (; i < wide; i += kLanes) {
      store(y + i, i < head_dim ? E::load(x + i, head_dim - i) : zero());
    }
  }
}

// [kKeys][wide] -> [tall][kKeys]
CARAVAN_INLINE void turn_keys(const float* rows, std::int64_t wide, std::int64_t tall, float* across) {
  for (std::int64_t i = 0; i < tall; i += 8) {
    for (std::int64_t k = 0; k < kKeys; k += 8) {
      transpose_8(rows + k * wide + i, wide, across + i * kKeys + k, kKeys);
    }
  }
}

// What a row of queries needs again and again: lse in base 2, and D.
struct RowStatistics {
  float lse, product;
};

template <typename E>
CARAVAN_INLINE float dot(const typename E::Stored* a, const typename E::Stored* b, std::int64_t n) {
  Vec total = zero();
  each_vector(
      n, [&](std::int64_t i) { total = fma(E::load(a + i), E::load(b + i), total); },
      [&](std::int64_t i, std::int64_t m) { total = fma(E::load(a + i, m), E::load(b + i, m), total); });
  return sum(total);
}

template <typename E>
void make_statistics(const AttentionGradShape& shape, const AttentionGradTask& task, RowStatistics* statistics) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  for (std::int64_t i = 0; i < task.count; ++i) {
    const AttentionGradRange& one = task.ranges[i];
    for (std::int64_t q = one.range.query_begin; q < one.range.query_end && !one.repeated; ++q) {
      for (std::int64_t h = 0; h < group; ++h) {
        const std::int64_t head = task.kv_head * group + h;
        statistics[(one.row + q - one.range.query_begin) * group + h] = {
            shape.lse[q * shape.heads + head] * kLog2E,
            dot<E>(head_of<E>(shape.d_out, q, head, shape.head_dim), head_of<E>(shape.out, q, head, shape.head_dim),
                   shape.head_dim)};
      }
    }
  }
}

// From a row's products with keys and values: the probabilities of columns [low, high) and the scores' gradients; 0 in
// the others up to `padded`, whatever stood there.
CARAVAN_INLINE void soften_grad_row(float* weights, float* d_scores, std::int64_t low, std::int64_t high,
                                    std::int64_t padded, float scale, const RowStatistics& row) {
  const Vec factor = set(scale);
  const Vec shift = set(-row.lse);
  const Vec product = set(row.product);
  for (std::int64_t k = 0; k < padded; k += kLanes) {
    if (k >= high || k + kLanes <= low) {
      store(weights + k, zero());
      store(d_scores + k, zero());
      continue;
    }
    Vec p = exp2(fma(load(weights + k), factor, shift));
    Vec d = p * (load(d_scores + k) - product);
    if (k < low) {
      const Mask before = first_lanes(low - k);
      p = select(before, zero(), p);
      d = select(before, zero(), d);
    }
    if (k + kLanes > high) {
      const Mask inside = first_lanes(high - k);
      p = select(inside, p, zero());
      d = select(inside, d, zero());
    }
    store(weights + k, p);
    store(d_scores + k, d);
  }
}

// Rows [query, query + queries) of one head meet the keys [first, first + n) of a block, which stand `low` keys in.
struct GradTile {
  const KeyRange* range;
  std::int64_t query, queries, head;
  std::int64_t first, n, low;
  const RowStatistics* statistics;  // of the first row
  std::int64_t statistics_stride;
  float* sums;  // of the first row
  std::int64_t sums_stride;
};

template <typename E>
void meet(const AttentionGradShape& shape, const GradScratch& s, const GradTile& tile, float* scratch) {
  const std::int64_t dim = shape.head_dim;
  const std::int64_t offset = tile.first - tile.range->key_begin;
  const auto seen = [&](std::int64_t query) { return visible_keys(*tile.range, query, offset, tile.n); };
  // Later queries see more.
  const std::int64_t most = tile.low + seen(tile.query + tile.queries - 1);
  const std::int64_t padded = round_up(most, kLanes);
  float* const queries = scratch + s.queries;
  float* const d_outs = scratch + s.d_outs;
  float* const weights = scratch + s.weights;
  float* const d_scores = scratch + s.d_scores;
  widen_head<E>(head_of<E>(shape.query, tile.query, tile.head, dim), shape.query.stride, tile.queries, dim, s.wide,
                queries);
  widen_head<E>(head_of<E>(shape.d_out, tile.query, tile.head, dim), shape.d_out.stride, tile.queries, dim, s.wide,
                d_outs);
  multiply<float>({queries, s.wide, 1, scratch + s.keys_across, kKeys, dim, weights, kKeys, false}, tile.queries,
                  padded);
  multiply<float>({d_outs, s.wide, 1, scratch + s.values_across, kKeys, dim, d_scores, kKeys, false}, tile.queries,
                  padded);
  for (std::int64_t r = 0; r < tile.queries; ++r) {
    soften_grad_row(weights + r * kKeys, d_scores + r * kKeys, tile.low, tile.low + seen(tile.query + r), padded,
                    shape.scale * kLog2E, tile.statistics[r * tile.statistics_stride]);
  }
  multiply<float>({weights, 1, kKeys, d_outs, s.wide, tile.queries, scratch + s.d_values, s.wide, true}, most, s.wide);
  multiply<float>({d_scores, 1, kKeys, queries, s.wide, tile.queries, scratch + s.d_keys, s.wide, true}, most, s.wide);
  multiply<float>({d_scores, kKeys, 1, scratch + s.keys, s.wide, most, tile.sums, tile.sums_stride, true}, tile.queries,
                  s.wide);
}

// Calls meet(tile) for all queries that see keys of the block.  wide: of the task's sums.
template <typename Meet>
CARAVAN_INLINE void meet_block(const AttentionGradShape& shape, const AttentionGradTask& task, const KeyBlock& block,
                               const RowStatistics* statistics, std::int64_t wide, const Meet& meet) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  for (std::int64_t i = 0; i < task.count; ++i) {
    const KeyRange& range = task.ranges[i].range;
    const std::int64_t first = block.begin > range.key_begin ? block.begin : range.key_begin;
    const std::int64_t n = least(block.end, range.key_end) - first;
    if (n <= 0) {
      continue;
    }
    const std::int64_t hidden = first - range.key_begin - range.diagonal;  // queries that come too early to see any
    const std::int64_t from = range.query_begin + (hidden > 0 ? hidden : 0);
    for (std::int64_t h = 0; h < group; ++h) {
      for (std::int64_t query = from; query < range.query_end; query += kGradQueries) {
        const std::int64_t row = (task.ranges[i].row + query - range.query_begin) * group + h;
        meet(GradTile{.range = &range,
                      .query = query,
                      .queries = least(kGradQueries, range.query_end - query),
                      .head = task.kv_head * group + h,
                      .first = first,
                      .n = n,
                      .low = first - block.begin,
                      .statistics = statistics + row,
                      .statistics_stride = group,
                      .sums = task.sums + row * wide,
                      .sums_stride = group * wide});
      }
    }
  }
}

template <typename E>
CARAVAN_INLINE void write_head(const float* sums, std::int64_t n, float scale, typename E::Stored* to) {
  const Vec factor = set(scale);
  each_vector(
      n, [&](std::int64_t i) { E::store(to + i, load(sums + i) * factor); },
      [&](std::int64_t i, std::int64_t m) { E::store(to + i, F32::load(sums + i, m) * factor, m); });
}

// d_key and d_value of a block, which are complete.  Both sums: [keys][wide].
template <typename E>
CARAVAN_INLINE void write_block(const AttentionGradShape& shape, std::int64_t kv_head, const KeyBlock& block,
                                const float* d_keys, const float* d_values, std::int64_t wide) {
  for (std::int64_t key = block.begin; key < block.end; ++key) {
    const std::int64_t at = (key - block.begin) * wide;
    write_head<E>(d_keys + at, shape.head_dim, shape.scale, head_of<E>(shape.d_key, key, kv_head, shape.head_dim));
    write_head<E>(d_values + at, shape.head_dim, 1.0F, head_of<E>(shape.d_value, key, kv_head, shape.head_dim));
  }
}

template <typename E>
void attention_grad_of(const AttentionGradShape& shape, const AttentionGradTask& task, float* scratch) {
  const GradScratch s = grad_layout_of(shape, task.rows);
  const std::int64_t dim = shape.head_dim;
  fill(task.sums, task.rows * (shape.heads / shape.kv_heads) * s.wide, 0.0F);
  auto* const statistics = reinterpret_cast<RowStatistics*>(scratch + s.statistics);
  make_statistics<E>(shape, task, statistics);
  for (std::int64_t b = task.first_block; b < task.block_count; b += task.step) {
    const KeyBlock& block = task.blocks[b];
    const std::int64_t n = block.end - block.begin;
    float* const keys = scratch + s.keys;
    float* const values = scratch + s.values;
    fill(keys + n * s.wide, (kKeys - n) * s.wide, 0.0F);
    fill(values + n * s.wide, (kKeys - n) * s.wide, 0.0F);
    widen_head<E>(head_of<E>(shape.key, block.begin, task.kv_head, dim), shape.key.stride, n, dim, s.wide, keys);
    widen_head<E>(head_of<E>(shape.value, block.begin, task.kv_head, dim), shape.value.stride, n, dim, s.wide, values);
    turn_keys(keys, s.wide, s.tall, scratch + s.keys_across);
    turn_keys(values, s.wide, s.tall, scratch + s.values_across);
    fill(scratch + s.d_keys, kKeys * s.wide, 0.0F);
    fill(scratch + s.d_values, kKeys * s.wide, 0.0F);
    meet_block(shape, task, block, statistics, s.wide, [&](const GradTile& tile) { meet<E>(shape, s, tile, scratch); });
    write_block<E>(shape, task.kv_head, block, scratch + s.d_keys, scratch + s.d_values, s.wide);
  }
}

void attention_grad(const AttentionGradShape& shape, const AttentionGradTask& task, float* scratch) {
  with_element(shape.element, [&](auto e) { attention_grad_of<decltype(e)>(shape, task, scratch); });
}

template <typename E>
void merge_grad_rows(const AttentionGradShape& shape, const AttentionGradMerge& merge) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::int64_t wide = round_up(shape.head_dim, 16);
  const std::int64_t piece = merge.rows * group * wide;
  const auto total_of = [&](const float* sums) {
    Vec total = load(sums);
    for (std::int64_t p = 1; p < merge.pieces; ++p) {
      total = total + load(sums + p * piece);
    }
    return total * set(shape.scale);
  };
  for (std::int64_t i = 0; i < merge.count; ++i) {
    const AttentionGradRange& one = merge.ranges[i];
    for (std::int64_t q = one.range.query_begin; q < one.range.query_end && !one.repeated; ++q) {
      for (std::int64_t h = 0; h < group; ++h) {
        const float* sums = merge.sums + ((one.row + q - one.range.query_begin) * group + h) * wide;
        auto* to = head_of<E>(shape.d_query, q, merge.kv_head * group + h, shape.head_dim);
        each_vector(
            shape.head_dim, [&](std::int64_t k) { E::store(to + k, total_of(sums + k)); },
            [&](std::int64_t k, std::int64_t m) { E::store(to + k, total_of(sums + k), m); });
      }
    }
  }
}

void attention_grad_merge(const AttentionGradShape& shape, const AttentionGradMerge& merge) {
  with_element(shape.element, [&](auto e) { merge_grad_rows<decltype(e)>(shape, merge); });
}

}  // namespace
}  // namespace caravan::ops::cpu

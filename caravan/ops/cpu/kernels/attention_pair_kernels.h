// Attention in bf16 by products of pairs (AVX512_BF16's dot product): the blocks of attention_kernels.h and
// attention_grad_kernels.h with both factors of every product in bf16 and f32 sums.
//
// Queries, keys, values and d_out enter as they stand.  The weights and the scores' gradients are rounded to bf16 before
// they meet values, keys and queries, which is what flash attention does on tensor cores too (Dao et al. 2022); the sum
// of weights is of the unrounded ones.  A product of features pairs neighbours of a row; one of keys or queries pairs
// the same column of two neighbouring rows, so those factors are laid together row by row.
#pragma once

#include "caravan/ops/cpu/kernels/attention_grad_kernels.h"

namespace caravan::ops::cpu {
namespace {

// Pairs of a row, as an element of pack_keys and of copies.
struct WordRow {
  using Stored = Word;
  CARAVAN_INLINE static Vec load(const Word* p) { return as_floats(::load(p)); }
  CARAVAN_INLINE static Vec load(const Word* p, std::int64_t n) { return as_floats(::load(p, n)); }
};

CARAVAN_INLINE const Word* words(const Rows& rows, std::int64_t row, std::int64_t head, std::int64_t head_dim) {
  return reinterpret_cast<const Word*>(head_of<BF16>(rows, row, head, head_dim));
}

// Rows a and b of `dim` columns laid together, (a[i], b[i]) for each i, zeros up to `wide`; b null: zeros.
CARAVAN_INLINE void lay_together(const std::uint16_t* a, const std::uint16_t* b, std::int64_t dim, std::int64_t wide,
                                 Word* to) {
  for (std::int64_t i = 0; i < wide; i += kLanes) {
    const std::int64_t left = dim - i;
    const auto part = [&](const std::uint16_t* row) {
      return row == nullptr || left <= 0 ? zero() : left >= kLanes ? BF16::load(row + i) : BF16::load(row + i, left);
    };
    store(to + i, pair_up(part(a), part(b)));
  }
}

// Values [0, n) of one head into tiles of columns, each [kKeys / 2][width] pairs of keys.
CARAVAN_INLINE void pack_value_pairs(const std::uint16_t* values, std::int64_t stride, std::int64_t n,
                                     std::int64_t head_dim, Word* packed) {
  const std::int64_t wide = round_up(head_dim, kLanes);
  for (std::int64_t k = 0; k < n; k += 2) {
    const std::uint16_t* first = values + k * stride;
    const std::uint16_t* second = k + 1 < n ? first + stride : nullptr;
    for (std::int64_t tile = 0; tile < wide; tile += kTileWidth) {
      const std::int64_t width = least(kTileWidth, wide - tile);
      lay_together(first + tile, second == nullptr ? nullptr : second + tile, least(width, head_dim - tile), width,
                   packed + tile * (kKeys / 2) + k / 2 * width);
    }
  }
}

// Query rows as they stand, into panels [head_dim / 2][kTileRows].
CARAVAN_INLINE void pack_query_pairs(const AttentionShape& shape, const AttentionTask& task, const Scratch& s,
                                     Word* panels) {
  const std::int64_t depth = shape.head_dim / 2;
  for (std::int64_t row = 0; row < s.panels * kTileRows; ++row) {
    Word* column = panels + row / kTileRows * kTileRows * depth + row % kTileRows;
    if (row >= s.rows) {
      for (std::int64_t i = 0; i < depth; ++i) {
        column[i * kTileRows] = {};
      }
      continue;
    }
    const RowPlace place = place_of(shape, task.query_begin, task.kv_head, row);
    const Word* query = words(shape.query, place.query, place.head, shape.head_dim);
    for (std::int64_t i = 0; i < depth; ++i) {
      column[i * kTileRows] = query[i];
    }
  }
}

// A row's weights as pairs of neighbouring keys.
CARAVAN_INLINE void narrow_row(const float* weights, std::int64_t padded, Word* to) {
  auto* halves = reinterpret_cast<std::uint16_t*>(to);
  for (std::int64_t k = 0; k < padded; k += kLanes) {
    BF16::store(halves + k, load(weights + k));
  }
}

void attention_pair_blocks(const AttentionShape& shape, const AttentionTask& task, float* scratch) {
  const Scratch s = layout_of(shape, task.queries);
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::int64_t depth = shape.head_dim / 2;
  const std::int64_t tall = round_up(depth, 8);
  auto* const queries = reinterpret_cast<Word*>(scratch + s.queries);
  auto* const keys = reinterpret_cast<Word*>(scratch + s.keys);
  auto* const values = reinterpret_cast<Word*>(scratch + s.values);
  auto* const weights = reinterpret_cast<Word*>(scratch + s.weights);
  float* const scores = scratch + s.scores;
  float* const sums = scratch + s.sums;
  auto* const states = reinterpret_cast<RowState*>(scratch + s.states);
  const Vec scale = set(shape.scale * kLog2E);
  fill(sums, s.panels * kTileRows * s.wide, 0.0F);
  begin_states(states, s.panels * kTileRows);
  pack_query_pairs(shape, task, s, queries);

  each_tile(task, [&](const KeyRange& range, std::int64_t offset, std::int64_t n) {
    const std::int64_t first = range.key_begin + offset;
    pack_keys<WordRow>(words(shape.key, first, task.kv_head, shape.head_dim), shape.key.stride / 2, n, depth,
                       scratch + s.key_rows, scratch + s.keys);
    pack_value_pairs(head_of<BF16>(shape.value, first, task.kv_head, shape.head_dim), shape.value.stride, n,
                     shape.head_dim, values);
    for (std::int64_t panel = 0; panel < s.panels; ++panel) {
      const std::int64_t row = panel * kTileRows;
      const std::int64_t last_row = least(row + kTileRows, s.rows) - 1;
      // Later queries see more: what the panel's last row sees bounds its work.
      const std::int64_t most = visible_keys(range, task.query_begin + last_row / group, offset, n);
      if (most <= 0) {
        continue;
      }
      for (std::int64_t k = 0; k < most; k += kTileWidth) {
        score_tile<Word>(queries + row * depth, keys + k * tall, depth, scale, scores + k);
      }
      const std::int64_t padded = round_up(most, kLanes);
      float decay[kTileRows];
      for (int r = 0; r < kTileRows; ++r) {
        const std::int64_t seen =
            row + r < s.rows ? visible_keys(range, task.query_begin + (row + r) / group, offset, n) : 0;
        decay[r] = soften_row(scores + r * kKeys, seen, padded, states[row + r]);
        narrow_row(scores + r * kKeys, padded, weights + r * (kKeys / 2));
      }
      weigh_values<Word>(weights, kKeys / 2, values, (most + 1) / 2, decay, sums + row * s.wide, s.wide);
    }
  });
  finish<BF16>(shape, task, sums, s.wide, states);
}

// bf16, of an even head_dim and even row strides.
void attention_pairs(const AttentionShape& shape, const AttentionTask& task, float* scratch) {
  constexpr std::int64_t kFewRows = 6;  // which read keys and values where they stand
  if (task.queries * (shape.heads / shape.kv_heads) <= kFewRows) {
    return attention(shape, task, scratch);
  }
  attention_pair_blocks(shape, task, scratch);
}

// Where the pieces of a task's scratch begin, in floats (or pairs).
struct GradPairScratch {
  std::int64_t wide, half, tall;
  std::int64_t rows, keys_across, values_across, keys, d_keys, d_values;
  std::int64_t queries, d_outs, weights, d_scores, weight_pairs, d_score_pairs, d_score_rows, statistics, floats;
};

CARAVAN_INLINE GradPairScratch grad_pair_layout_of(const AttentionGradShape& shape, std::int64_t rows) {
  GradPairScratch s{};
  s.wide = round_up(shape.head_dim, 16);
  s.half = round_up(shape.head_dim / 2, 16);
  s.tall = round_up(shape.head_dim / 2, 8);
  std::int64_t at = 0;
  const auto take = [&](std::int64_t floats) {
    const std::int64_t here = at;
    at += round_up(floats, 16);  // a cache line
    return here;
  };
  s.rows = take(kKeys * s.half);
  s.keys_across = take(s.tall * kKeys);
  s.values_across = take(s.tall * kKeys);
  s.keys = take(kKeys / 2 * s.wide);
  s.d_keys = take(kKeys * s.wide);
  s.d_values = take(kKeys * s.wide);
  s.queries = take(kGradQueries / 2 * s.wide);
  s.d_outs = take(kGradQueries / 2 * s.wide);
  s.weights = take(kGradQueries * kKeys);
  s.d_scores = take(kGradQueries * kKeys);
  s.weight_pairs = take(kGradQueries / 2 * kKeys);
  s.d_score_pairs = take(kGradQueries / 2 * kKeys);
  s.d_score_rows = take(kGradQueries * kKeys / 2);
  s.statistics = take(rows * (shape.heads / shape.kv_heads) * 2);
  s.floats = at;
  return s;
}

std::int64_t attention_grad_pairs_scratch(const AttentionGradShape& shape, std::int64_t rows) {
  return grad_pair_layout_of(shape, rows).floats;
}

// n rows of one head laid together two by two, [(n + 1) / 2][wide].
CARAVAN_INLINE void lay_rows_together(const std::uint16_t* from, std::int64_t stride, std::int64_t n, std::int64_t dim,
                                      std::int64_t wide, Word* to) {
  for (std::int64_t row = 0; row < n; row += 2) {
    lay_together(from + row * stride, row + 1 < n ? from + (row + 1) * stride : nullptr, dim, wide,
                 to + row / 2 * wide);
  }
}

// n rows of one head, [kKeys][s.half] with zeros beyond, turned into [tall][kKeys].
CARAVAN_INLINE void turn_head(const Word* from, std::int64_t stride, std::int64_t n, std::int64_t depth,
                              const GradPairScratch& s, float* rows, float* across) {
  for (std::int64_t row = 0; row < kKeys; ++row) {
    float* y = rows + row * s.half;
    for (std::int64_t i = 0; i < s.half; i += kLanes) {
      const std::int64_t left = depth - i;
      store(y + i, row >= n || left <= 0 ? zero()
                   : left >= kLanes      ? WordRow::load(from + row * stride + i)
                                         : WordRow::load(from + row * stride + i, left));
    }
  }
  turn_keys(rows, s.half, s.tall, across);
}

// The weights and the scores' gradients of `rows` rows, laid together two by two; the latter also row by row.
CARAVAN_INLINE void narrow_weights(const float* weights, const float* d_scores, std::int64_t rows, std::int64_t padded,
                                   Word* weight_pairs, Word* d_score_pairs, Word* d_score_rows) {
  for (std::int64_t r = 0; r < rows; r += 2) {
    const bool two = r + 1 < rows;
    for (std::int64_t k = 0; k < padded; k += kLanes) {
      const auto pair = [&](const float* from) {
        return pair_up(load(from + r * kKeys + k), two ? load(from + (r + 1) * kKeys + k) : zero());
      };
      store(weight_pairs + r / 2 * kKeys + k, pair(weights));
      store(d_score_pairs + r / 2 * kKeys + k, pair(d_scores));
    }
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    narrow_row(d_scores + r * kKeys, padded, d_score_rows + r * (kKeys / 2));
  }
}

// The twin of meet().
void meet_pairs(const AttentionGradShape& shape, const GradPairScratch& s, const GradTile& tile, float* scratch) {
  const std::int64_t dim = shape.head_dim;
  const std::int64_t depth = dim / 2;
  const std::int64_t offset = tile.first - tile.range->key_begin;
  const auto seen = [&](std::int64_t query) { return visible_keys(*tile.range, query, offset, tile.n); };
  const auto pairs = [&](std::int64_t at) { return reinterpret_cast<Word*>(scratch + at); };
  // Later queries see more.
  const std::int64_t most = tile.low + seen(tile.query + tile.queries - 1);
  const std::int64_t padded = round_up(most, kLanes);
  float* const weights = scratch + s.weights;
  float* const d_scores = scratch + s.d_scores;
  lay_rows_together(head_of<BF16>(shape.query, tile.query, tile.head, dim), shape.query.stride, tile.queries, dim,
                    s.wide, pairs(s.queries));
  lay_rows_together(head_of<BF16>(shape.d_out, tile.query, tile.head, dim), shape.d_out.stride, tile.queries, dim,
                    s.wide, pairs(s.d_outs));
  multiply<Word>({words(shape.query, tile.query, tile.head, dim), shape.query.stride / 2, 1, pairs(s.keys_across),
                  kKeys, depth, weights, kKeys, false},
                 tile.queries, padded);
  multiply<Word>({words(shape.d_out, tile.query, tile.head, dim), shape.d_out.stride / 2, 1, pairs(s.values_across),
                  kKeys, depth, d_scores, kKeys, false},
                 tile.queries, padded);
  for (std::int64_t r = 0; r < tile.queries; ++r) {
    soften_grad_row(weights + r * kKeys, d_scores + r * kKeys, tile.low, tile.low + seen(tile.query + r), padded,
                    shape.scale * kLog2E, tile.statistics[r * tile.statistics_stride]);
  }
  narrow_weights(weights, d_scores, tile.queries, padded, pairs(s.weight_pairs), pairs(s.d_score_pairs),
                 pairs(s.d_score_rows));
  const std::int64_t queries = (tile.queries + 1) / 2;
  multiply<Word>(
      {pairs(s.weight_pairs), 1, kKeys, pairs(s.d_outs), s.wide, queries, scratch + s.d_values, s.wide, true}, most,
      s.wide);
  multiply<Word>(
      {pairs(s.d_score_pairs), 1, kKeys, pairs(s.queries), s.wide, queries, scratch + s.d_keys, s.wide, true}, most,
      s.wide);
  multiply<Word>(
      {pairs(s.d_score_rows), kKeys / 2, 1, pairs(s.keys), s.wide, (most + 1) / 2, tile.sums, tile.sums_stride, true},
      tile.queries, s.wide);
}

void attention_grad_pairs(const AttentionGradShape& shape, const AttentionGradTask& task, float* scratch) {
  const GradPairScratch s = grad_pair_layout_of(shape, task.rows);
  const std::int64_t dim = shape.head_dim;
  auto* const statistics = reinterpret_cast<RowStatistics*>(scratch + s.statistics);
  fill(task.sums, task.rows * (shape.heads / shape.kv_heads) * s.wide, 0.0F);
  make_statistics<BF16>(shape, task, statistics);
  for (std::int64_t b = task.first_block; b < task.block_count; b += task.step) {
    const KeyBlock& block = task.blocks[b];
    const std::int64_t n = block.end - block.begin;
    turn_head(words(shape.key, block.begin, task.kv_head, dim), shape.key.stride / 2, n, dim / 2, s, scratch + s.rows,
              scratch + s.keys_across);
    turn_head(words(shape.value, block.begin, task.kv_head, dim), shape.value.stride / 2, n, dim / 2, s,
              scratch + s.rows, scratch + s.values_across);
    lay_rows_together(head_of<BF16>(shape.key, block.begin, task.kv_head, dim), shape.key.stride, n, dim, s.wide,
                      reinterpret_cast<Word*>(scratch + s.keys));
    fill(scratch + s.d_keys, kKeys * s.wide, 0.0F);
    fill(scratch + s.d_values, kKeys * s.wide, 0.0F);
    meet_block(shape, task, block, statistics, s.wide,
               [&](const GradTile& tile) { meet_pairs(shape, s, tile, scratch); });
    write_block<BF16>(shape, task.kv_head, block, scratch + s.d_keys, scratch + s.d_values, s.wide);
  }
}

}  // namespace
}  // namespace caravan::ops::cpu

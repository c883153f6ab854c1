// Attention over key ranges: block by block with a running softmax (Dao et al. 2022), or key by key for few rows.
#pragma once

#include "caravan/ops/cpu/kernels/attention_tiles.h"

namespace caravan::ops::cpu {
namespace {

// Where the pieces of a task's scratch begin, in floats.
struct Scratch {
  std::int64_t rows, panels, wide;
  std::int64_t queries, keys, key_rows, values, scores, weights, sums, states, floats;
};

CARAVAN_INLINE Scratch layout_of(const AttentionShape& shape, std::int64_t queries) {
  Scratch s{};
  s.rows = queries * (shape.heads / shape.kv_heads);
  s.panels = (s.rows + kTileRows - 1) / kTileRows;
  s.wide = round_up(shape.head_dim, kLanes);
  const std::int64_t padded_rows = s.panels * kTileRows;
  std::int64_t at = 0;
  const auto take = [&](std::int64_t floats) {
    const std::int64_t here = at;
    at += round_up(floats, 16);  // a cache line
    return here;
  };
  s.queries = take(padded_rows * round_up(shape.head_dim, 16));
  s.keys = take(kKeys * round_up(shape.head_dim, 8));
  s.key_rows = take(8 * round_up(shape.head_dim, 16));
  s.values = take(kKeys * s.wide);
  s.scores = take(kTileRows * kKeys);
  s.weights = take(kTileRows * kKeys / 2);  // of pairs
  s.sums = take(padded_rows * s.wide);
  s.states = take(padded_rows * 2);
  s.floats = at;
  return s;
}

std::int64_t attention_scratch(const AttentionShape& shape, std::int64_t queries) {
  return layout_of(shape, queries).floats;
}

// The address of (row, head) in a [rows, heads * head_dim] matrix.
template <typename E>
CARAVAN_INLINE typename E::Stored* head_of(const Rows& rows, std::int64_t row, std::int64_t head,
                                           std::int64_t head_dim) {
  return row_of<E>(rows, row) + head * head_dim;
}

// How many of the tile's keys, which begin `offset` keys into the range, query row `query` sees.
CARAVAN_INLINE std::int64_t visible_keys(const KeyRange& range, std::int64_t query, std::int64_t offset,
                                         std::int64_t n) {
  // A diagonal that masks nothing may be near 2^63: compare before subtracting.
  const std::int64_t ahead = offset - (query - range.query_begin);
  if (range.diagonal >= ahead + n - 1) {
    return n;
  }
  const std::int64_t visible = range.diagonal - ahead + 1;
  return visible < 0 ? 0 : visible;
}

// Calls body(range, offset, n) for each tile of keys of the task that somebody sees: n is what the last query sees of
// it.
template <typename Body>
CARAVAN_INLINE void each_tile(const AttentionTask& task, const Body& body) {
  for (std::int64_t i = 0; i < task.count; ++i) {
    const KeyRange& range = task.ranges[i];
    const std::int64_t end = least(range.key_end - range.key_begin, task.key_limit_end);
    for (std::int64_t offset = task.key_limit_begin; offset < end; offset += kKeys) {
      const std::int64_t n =
          visible_keys(range, task.query_begin + task.queries - 1, offset, least(kKeys, end - offset));
      if (n <= 0) {
        break;
      }
      body(range, offset, n);
    }
  }
}

// Which row of the task's queries and which head a row of the task is.
struct RowPlace {
  std::int64_t query, head;
};
CARAVAN_INLINE RowPlace place_of(const AttentionShape& shape, std::int64_t query_begin, std::int64_t kv_head,
                                 std::int64_t row) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  return {query_begin + row / group, kv_head * group + row % group};
}

// The end of a row: its weighted sum divided by its sum of weights.  A row that saw no key gets 0 and -infinity.
template <typename E>
void write_row(const AttentionShape& shape, const RowPlace& place, const float* sums, const RowState& state) {
  auto* out = head_of<E>(shape.out, place.query, place.head, shape.head_dim);
  const bool nothing = state.maximum == -__builtin_inff() && state.sum == 0.0F;  // the sum of NaN scores is NaN
  const Vec divisor = set(nothing ? 1.0F : state.sum);
  each_vector(
      shape.head_dim, [&](std::int64_t i) { E::store(out + i, load(sums + i) / divisor); },
      [&](std::int64_t i, std::int64_t n) { E::store(out + i, F32::load(sums + i, n) / divisor, n); });
  if (shape.lse != nullptr) {
    const double natural = static_cast<double>(state.maximum) * kLn2 + __builtin_log(state.sum);
    shape.lse[place.query * shape.heads + place.head] = nothing ? -__builtin_inff() : static_cast<float>(natural);
  }
}

// Sums and states of all rows: to out and lse, or to the task's partial.
template <typename E>
void finish(const AttentionShape& shape, const AttentionTask& task, const float* sums, std::int64_t stride,
            const RowState* states) {
  const std::int64_t rows = task.queries * (shape.heads / shape.kv_heads);
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = sums + row * stride;
    if (task.partial == nullptr) {
      write_row<E>(shape, place_of(shape, task.query_begin, task.kv_head, row), from, states[row]);
      continue;
    }
    float* to = task.partial + row * (shape.head_dim + 2);
    for (std::int64_t i = 0; i < shape.head_dim; ++i) {
      to[i] = from[i];
    }
    to[shape.head_dim] = states[row].maximum;
    to[shape.head_dim + 1] = states[row].sum;
  }
}

CARAVAN_INLINE void fill(float* p, std::int64_t n, float x) {
  for (std::int64_t i = 0; i < n; ++i) {
    p[i] = x;
  }
}

CARAVAN_INLINE void begin_states(RowState* states, std::int64_t rows) {
  for (std::int64_t row = 0; row < rows; ++row) {
    states[row] = {-__builtin_inff(), 0.0F};
  }
}

// Query rows, scaled so that scores come out in base 2, into panels [head_dim][kTileRows].
template <typename E>
void pack_queries(const AttentionShape& shape, const AttentionTask& task, const Scratch& s, float* rows,
                  float* panels) {
  const Vec scale = set(shape.scale * kLog2E);
  for (std::int64_t row = 0; row < s.panels * kTileRows; ++row) {
    float* column = panels + row / kTileRows * kTileRows * shape.head_dim + row % kTileRows;
    if (row >= s.rows) {
      for (std::int64_t i = 0; i < shape.head_dim; ++i) {
        column[i * kTileRows] = 0.0F;
      }
      continue;
    }
    const RowPlace place = place_of(shape, task.query_begin, task.kv_head, row);
    const auto* query = head_of<E>(shape.query, place.query, place.head, shape.head_dim);
    each_vector(
        shape.head_dim, [&](std::int64_t i) { store(rows + i, E::load(query + i) * scale); },
        [&](std::int64_t i, std::int64_t n) { store(rows + i, E::load(query + i, n) * scale); });
    for (std::int64_t i = 0; i < shape.head_dim; ++i) {
      column[i * kTileRows] = rows[i];
    }
  }
}

// Many rows: every tile of keys and values is packed once and meets all panels of rows.
template <typename E>
void attention_blocks(const AttentionShape& shape, const AttentionTask& task, float* scratch) {
  const Scratch s = layout_of(shape, task.queries);
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::int64_t tall = round_up(shape.head_dim, 8);
  float* const keys = scratch + s.keys;
  float* const values = scratch + s.values;
  float* const scores = scratch + s.scores;
  float* const sums = scratch + s.sums;
  auto* const states = reinterpret_cast<RowState*>(scratch + s.states);
  fill(sums, s.panels * kTileRows * s.wide, 0.0F);
  begin_states(states, s.panels * kTileRows);
  pack_queries<E>(shape, task, s, scratch + s.key_rows, scratch + s.queries);

  each_tile(task, [&](const KeyRange& range, std::int64_t offset, std::int64_t n) {
    const std::int64_t first = range.key_begin + offset;
    pack_keys<E>(head_of<E>(shape.key, first, task.kv_head, shape.head_dim), shape.key.stride, n, shape.head_dim,
                 scratch + s.key_rows, keys);
    pack_values<E>(head_of<E>(shape.value, first, task.kv_head, shape.head_dim), shape.value.stride, n, shape.head_dim,
                   values);
    for (std::int64_t panel = 0; panel < s.panels; ++panel) {
      const std::int64_t row = panel * kTileRows;
      const std::int64_t last_row = least(row + kTileRows, s.rows) - 1;
      // Later queries see more: what the panel's last row sees bounds its work.
      const std::int64_t most = visible_keys(range, task.query_begin + last_row / group, offset, n);
      if (most <= 0) {
        continue;
      }
      for (std::int64_t k = 0; k < most; k += kTileWidth) {
        score_tile(scratch + s.queries + row * shape.head_dim, keys + k * tall, shape.head_dim, set(1.0F), scores + k);
      }
      float decay[kTileRows];
      for (int r = 0; r < kTileRows; ++r) {
        const std::int64_t seen =
            row + r < s.rows ? visible_keys(range, task.query_begin + (row + r) / group, offset, n) : 0;
        decay[r] = soften_row(scores + r * kKeys, seen, round_up(most, kLanes), states[row + r]);
      }
      weigh_values(scores, kKeys, values, most, decay, sums + row * s.wide, s.wide);
    }
  });
  finish<E>(shape, task, sums, s.wide, states);
}

// scores[r][k] = <query r, key k> for `n` keys where they stand.  queries: rows `query_stride` apart, padded with
// zeros.
template <typename E, int kRows>
void score_few(const float* queries, std::int64_t query_stride, const typename E::Stored* keys, std::int64_t stride,
               std::int64_t n, std::int64_t head_dim, float* scores) {
  for (std::int64_t k = 0; k < n; ++k) {
    Vec dots[kRows];
    CARAVAN_UNROLL
    for (Vec& dot : dots) {
      dot = zero();
    }
    const auto add = [&](std::int64_t i, Vec b) {
      CARAVAN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        dots[r] = fma(load(queries + r * query_stride + i), b, dots[r]);
      }
    };
    const auto* key = keys + k * stride;
    each_vector(
        head_dim, [&](std::int64_t i) { add(i, E::load(key + i)); },
        [&](std::int64_t i, std::int64_t m) { add(i, E::load(key + i, m)); });
    CARAVAN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      scores[r * kKeys + k] = sum(dots[r]);
    }
  }
}

// weigh_tile for few rows and values where they stand; `last` is the width of the last vector.
template <typename E, int kRows, int kVectors>
CARAVAN_INLINE void weigh_few_tile(const float* weights, const typename E::Stored* values, std::int64_t stride,
                                   std::int64_t n, const float* decay, float* sums, std::int64_t sums_stride,
                                   std::int64_t last) {
  Vec a[kRows][kVectors];
  CARAVAN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    CARAVAN_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      a[r][j] = load(sums + r * sums_stride + j * kLanes) * set(decay[r]);
    }
  }
  for (std::int64_t k = 0; k < n; ++k) {
    const auto* value = values + k * stride;
    Vec b[kVectors];
    CARAVAN_UNROLL
    for (int j = 0; j + 1 < kVectors; ++j) {
      b[j] = E::load(value + j * kLanes);
    }
    const auto* end = value + (kVectors - 1) * kLanes;
    b[kVectors - 1] = last == kLanes ? E::load(end) : E::load(end, last);
    CARAVAN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vec p = set(weights[r * kKeys + k]);
      CARAVAN_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        a[r][j] = fma(p, b[j], a[r][j]);
      }
    }
  }
  CARAVAN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    CARAVAN_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      store(sums + r * sums_stride + j * kLanes, a[r][j]);
    }
  }
}

template <typename E, int kRows>
void weigh_few(const float* weights, const typename E::Stored* values, std::int64_t stride, std::int64_t n,
               const float* decay, float* sums, std::int64_t sums_stride, std::int64_t head_dim) {
  std::int64_t i = 0;
  for (; i + kTileWidth <= head_dim; i += kTileWidth) {
    weigh_few_tile<E, kRows, kTileVectors>(weights, values + i, stride, n, decay, sums + i, sums_stride, kLanes);
  }
  for (; i < head_dim; i += kLanes) {
    weigh_few_tile<E, kRows, 1>(weights, values + i, stride, n, decay, sums + i, sums_stride,
                                least(kLanes, head_dim - i));
  }
}

// Few rows (a decode step): keys and values are read where they stand, once for all rows of the group.
template <typename E, int kRows>
void attention_few_rows(const AttentionShape& shape, const AttentionTask& task, float* scratch) {
  const Scratch s = layout_of(shape, task.queries);
  const std::int64_t group = shape.heads / shape.kv_heads;
  const std::int64_t tall = round_up(shape.head_dim, 16);
  float* const queries = scratch + s.queries;  // [kRows][tall]
  float* const scores = scratch + s.scores;
  float* const sums = scratch + s.sums;
  auto* const states = reinterpret_cast<RowState*>(scratch + s.states);
  fill(sums, kRows * s.wide, 0.0F);
  begin_states(states, kRows);
  const Vec scale = set(shape.scale * kLog2E);
  for (int row = 0; row < kRows; ++row) {
    const RowPlace place = place_of(shape, task.query_begin, task.kv_head, row);
    const auto* query = head_of<E>(shape.query, place.query, place.head, shape.head_dim);
    float* to = queries + row * tall;
    each_vector(
        shape.head_dim, [&](std::int64_t i) { store(to + i, E::load(query + i) * scale); },
        [&](std::int64_t i, std::int64_t n) { store(to + i, E::load(query + i, n) * scale); });
  }
  each_tile(task, [&](const KeyRange& range, std::int64_t offset, std::int64_t n) {
    const std::int64_t first = range.key_begin + offset;
    score_few<E, kRows>(queries, tall, head_of<E>(shape.key, first, task.kv_head, shape.head_dim), shape.key.stride, n,
                        shape.head_dim, scores);
    float decay[kRows];
    for (int row = 0; row < kRows; ++row) {
      const std::int64_t seen = visible_keys(range, task.query_begin + row / group, offset, n);
      decay[row] = soften_row(scores + row * kKeys, seen, round_up(n, kLanes), states[row]);
    }
    weigh_few<E, kRows>(scores, head_of<E>(shape.value, first, task.kv_head, shape.head_dim), shape.value.stride, n,
                        decay, sums, s.wide, shape.head_dim);
  });
  finish<E>(shape, task, sums, s.wide, states);
}

void attention(const AttentionShape& shape, const AttentionTask& task, float* scratch) {
  with_element(shape.element, [&](auto e) {
    using E = decltype(e);
    switch (task.queries * (shape.heads / shape.kv_heads)) {
      case 1:
        return attention_few_rows<E, 1>(shape, task, scratch);
      case 2:
        return attention_few_rows<E, 2>(shape, task, scratch);
      case 3:
        return attention_few_rows<E, 3>(shape, task, scratch);
      case 4:
        return attention_few_rows<E, 4>(shape, task, scratch);
      case 5:
        return attention_few_rows<E, 5>(shape, task, scratch);
      case 6:
        return attention_few_rows<E, 6>(shape, task, scratch);
      default:
        return attention_blocks<E>(shape, task, scratch);
    }
  });
}

// The pieces are merged into the first one's rows: partials are scratch.
template <typename E>
void merge_rows(const AttentionShape& shape, const AttentionMerge& merge) {
  const std::int64_t rows = merge.queries * (shape.heads / shape.kv_heads);
  const std::int64_t stride = shape.head_dim + 2;
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto piece_of = [&](std::int64_t piece) { return merge.partials + (piece * rows + row) * stride; };
    RowState state{-__builtin_inff(), 0.0F};
    for (std::int64_t piece = 0; piece < merge.pieces; ++piece) {
      const float other = piece_of(piece)[shape.head_dim];
      state.maximum = other > state.maximum ? other : state.maximum;
    }
    // Where no piece has a maximum there may be NaN sums, which the factor 0 keeps.
    const float base = state.maximum > -__builtin_inff() ? state.maximum : 0.0F;
    float* into = piece_of(0);
    for (std::int64_t piece = 0; piece < merge.pieces; ++piece) {
      const float* from = piece_of(piece);
      float lanes[kLanes];
      store(lanes, exp2(set(from[shape.head_dim] - base)));
      state.sum += from[shape.head_dim + 1] * lanes[0];
      for (std::int64_t i = 0; i < shape.head_dim; ++i) {
        into[i] = (piece == 0 ? 0.0F : into[i]) + from[i] * lanes[0];
      }
    }
    write_row<E>(shape, place_of(shape, merge.query_begin, merge.kv_head, row), into, state);
  }
}

void attention_merge(const AttentionShape& shape, const AttentionMerge& merge) {
  with_element(shape.element, [&](auto e) { merge_rows<decltype(e)>(shape, merge); });
}

}  // namespace
}  // namespace caravan::ops::cpu

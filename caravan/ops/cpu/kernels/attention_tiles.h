// The matrix pieces of attention: packing of tiles, products of 6 rows, and the running softmax of a panel.
//
// A tile holds kKeys keys.  Keys are transposed so that a vector holds one feature of several keys; values are copied
// so that a vector holds several features of one key; both become f32.  Queries stand in panels of kTileRows rows with
// the rows innermost, as the products broadcast them.  Widths of kTileVectors vectors stand together, so that every
// inner loop walks contiguous memory.
#pragma once

#include "caravan/ops/cpu/kernels/functions.h"

#if defined(__clang__)
#define CARAVAN_UNROLL _Pragma("unroll")
#else
#define CARAVAN_UNROLL _Pragma("GCC unroll 8")
#endif

namespace caravan::ops::cpu {
namespace {

constexpr int kKeys = 64;
constexpr int kTileWidth = kTileVectors * kLanes;
constexpr float kLog2E = 1.44269504088896F;
constexpr double kLn2 = 0.69314718055994530942;

CARAVAN_INLINE std::int64_t round_up(std::int64_t n, std::int64_t unit) {
  return (n + unit - 1) / unit * unit;
}
CARAVAN_INLINE std::int64_t least(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

// 8 x 8 floats; the three stages exchange neighbours 1, 2 and 4 apart.
CARAVAN_INLINE void transpose_8(const float* src, std::int64_t src_stride, float* dst, std::int64_t dst_stride) {
  __m256 a[8];
  __m256 b[8];
  CARAVAN_UNROLL
  for (int i = 0; i < 8; ++i) {
    a[i] = _mm256_loadu_ps(src + i * src_stride);
  }
  CARAVAN_UNROLL
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  CARAVAN_UNROLL
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  CARAVAN_UNROLL
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(dst + i * dst_stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(dst + (i + 4) * dst_stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
}

// Keys [first, first + n) of one head into [kKeys / kTileWidth][round_up(head_dim, 8)][kTileWidth].
// `rows`: scratch of 8 * round_up(head_dim, 16).  Columns of keys that do not exist keep what they held.
template <typename E>
void pack_keys(const typename E::Stored* keys, std::int64_t stride, std::int64_t n, std::int64_t head_dim, float* rows,
               float* packed) {
  const std::int64_t wide = round_up(head_dim, 16);
  const std::int64_t tall = round_up(head_dim, 8);
  for (std::int64_t k = 0; k < n; k += 8) {
    for (std::int64_t r = 0; r < 8; ++r) {
      float* row = rows + r * wide;
      const auto* key = keys + least(k + r, n - 1) * stride;  // the last key again where there are no more
      each_vector(
          head_dim, [&](std::int64_t i) { store(row + i, E::load(key + i)); },
          [&](std::int64_t i, std::int64_t m) { store(row + i, E::load(key + i, m)); });
    }
    float* tile = packed + k / kTileWidth * tall * kTileWidth + k % kTileWidth;
    for (std::int64_t i = 0; i < tall; i += 8) {
      transpose_8(rows + i, wide, tile + i * kTileWidth, kTileWidth);
    }
  }
}

// Values [0, n) of one head into tiles of columns, each [kKeys][width], width = kTileWidth but for the last.
template <typename E>
void pack_values(const typename E::Stored* values, std::int64_t stride, std::int64_t n, std::int64_t head_dim,
                 float* packed) {
  const std::int64_t wide = round_up(head_dim, kLanes);
  for (std::int64_t k = 0; k < n; ++k) {
    const auto* value = values + k * stride;
    for (std::int64_t tile = 0; tile < wide; tile += kTileWidth) {
      const std::int64_t width = least(kTileWidth, wide - tile);
      float* row = packed + tile * kKeys + k * width;
      each_vector(
          least(width, head_dim - tile), [&](std::int64_t i) { store(row + i, E::load(value + tile + i)); },
          [&](std::int64_t i, std::int64_t m) { store(row + i, E::load(value + tile + i, m)); });
    }
  }
}

// What factors of products are made of: floats, or pairs of bf16 that are multiplied and added at once.
CARAVAN_INLINE Vec spread(float one) {
  return set(one);
}
CARAVAN_INLINE Pairs spread(const Word& two) {
  return set(two);
}
template <typename T>
using VectorOf = decltype(load(static_cast<const T*>(nullptr)));

// scores[r][j] = factor <query r, key j> of one panel and one width of keys.
// panel: [depth][kTileRows].  keys: [depth][kTileWidth].  scores: rows kKeys apart.  depth: head_dim, or its half.
template <typename T>
CARAVAN_INLINE void score_tile(const T* panel, const T* keys, std::int64_t depth, Vec factor, float* scores) {
  Vec a[kTileRows][kTileVectors];
  CARAVAN_UNROLL
  for (auto& row : a) {
    CARAVAN_UNROLL
    for (Vec& v : row) {
      v = zero();
    }
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    VectorOf<T> b[kTileVectors];
    CARAVAN_UNROLL
    for (int j = 0; j < kTileVectors; ++j) {
      b[j] = load(keys + k * kTileWidth + j * kLanes);
    }
    CARAVAN_UNROLL
    for (int r = 0; r < kTileRows; ++r) {
      const VectorOf<T> q = spread(panel[k * kTileRows + r]);
      CARAVAN_UNROLL
      for (int j = 0; j < kTileVectors; ++j) {
        a[r][j] = fma(q, b[j], a[r][j]);
      }
    }
  }
  CARAVAN_UNROLL
  for (int r = 0; r < kTileRows; ++r) {
    CARAVAN_UNROLL
    for (int j = 0; j < kTileVectors; ++j) {
      store(scores + r * kKeys + j * kLanes, a[r][j] * factor);
    }
  }
}

// sums[r] = sums[r] * decay[r] + sum_k weights[r][k] values[k] over `n` keys (pairs of keys) and one width of columns.
// weights: rows `pitch` apart.  values: [n][kVectors * kLanes].  sums: rows `stride` apart.
template <int kVectors, typename T>
CARAVAN_INLINE void weigh_tile(const T* weights, std::int64_t pitch, const T* values, std::int64_t n,
                               const float* decay, float* sums, std::int64_t stride) {
  Vec a[kTileRows][kVectors];
  CARAVAN_UNROLL
  for (int r = 0; r < kTileRows; ++r) {
    CARAVAN_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      a[r][j] = load(sums + r * stride + j * kLanes) * set(decay[r]);
    }
  }
  for (std::int64_t k = 0; k < n; ++k) {
    VectorOf<T> b[kVectors];
    CARAVAN_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      b[j] = load(values + k * kVectors * kLanes + j * kLanes);
    }
    CARAVAN_UNROLL
    for (int r = 0; r < kTileRows; ++r) {
      const VectorOf<T> p = spread(weights[r * pitch + k]);
      CARAVAN_UNROLL
      for (int j = 0; j < kVectors; ++j) {
        a[r][j] = fma(p, b[j], a[r][j]);
      }
    }
  }
  CARAVAN_UNROLL
  for (int r = 0; r < kTileRows; ++r) {
    CARAVAN_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      store(sums + r * stride + j * kLanes, a[r][j]);
    }
  }
}

// All columns of a panel; `wide` is head_dim rounded up to vectors; pitch: kKeys, or its half for pairs.
template <typename T>
CARAVAN_INLINE void weigh_values(const T* weights, std::int64_t pitch, const T* values, std::int64_t n,
                                 const float* decay, float* sums, std::int64_t wide) {
  for (std::int64_t tile = 0; tile < wide; tile += kTileWidth) {
    const T* columns = values + tile * pitch;
    switch (least(kTileVectors, (wide - tile) / kLanes)) {
      case 1:
        weigh_tile<1>(weights, pitch, columns, n, decay, sums + tile, wide);
        break;
      case 2:
        weigh_tile<2>(weights, pitch, columns, n, decay, sums + tile, wide);
        break;
      case 3:
        weigh_tile<3>(weights, pitch, columns, n, decay, sums + tile, wide);
        break;
      default:
        weigh_tile<kTileVectors>(weights, pitch, columns, n, decay, sums + tile, wide);
        break;
    }
  }
}

// A row's running softmax, in base 2.
struct RowState {
  float maximum;  // -infinity before the first key
  float sum;      // of 2^(score - maximum)
};

// Turns the first `visible` scores of a row into weights and sets those up to `padded` (a multiple of kLanes) to 0.
// Returns what earlier sums must be multiplied by.
CARAVAN_INLINE float soften_row(float* scores, std::int64_t visible, std::int64_t padded, RowState& state) {
  if (visible <= 0) {
    for (std::int64_t k = 0; k < padded; k += kLanes) {
      store(scores + k, zero());
    }
    return 1.0F;
  }
  Vec highest = set(-__builtin_inff());
  std::int64_t k = 0;
  for (; k + kLanes <= visible; k += kLanes) {
    highest = max(highest, load(scores + k));
  }
  if (k < visible) {
    highest = max(highest, select(first_lanes(visible - k), load(scores + k), set(-__builtin_inff())));
  }
  const float here = maximum(highest);
  const float highest_so_far = here > state.maximum ? here : state.maximum;
  const Vec shift = set(highest_so_far);
  Vec total = zero();
  for (k = 0; k + kLanes <= visible; k += kLanes) {
    const Vec p = exp2(load(scores + k) - shift);
    store(scores + k, p);
    total = total + p;
  }
  if (k < visible) {
    const Vec p = select(first_lanes(visible - k), exp2(load(scores + k) - shift), zero());
    store(scores + k, p);
    total = total + p;
    k += kLanes;
  }
  for (; k < padded; k += kLanes) {
    store(scores + k, zero());
  }
  float decay = 1.0F;
  if (highest_so_far > state.maximum) {
    float lanes[kLanes];
    store(lanes, exp2(set(state.maximum - highest_so_far)));
    decay = lanes[0];
  }
  state.sum = state.sum * decay + sum(total);
  state.maximum = highest_so_far;
  return decay;
}

}  // namespace
}  // namespace caravan::ops::cpu

// The product of a weight's gradient, dw (+)= dy^T x, for x of few columns.
//
// Both factors are copied in blocks of tokens so that the inner loop walks contiguous memory: x once a block, into tiles
// of kTileWidth columns; dy in panels of kTileRows columns, a few at a time.  A tile of dw is kept in registers over a
// block (Goto & van de Geijn 2008, with x in the place of the larger cache's block).
#pragma once

#include "caravan/ops/cpu/kernels/attention_tiles.h"

namespace caravan::ops::cpu {
namespace {

constexpr std::int64_t kNarrowTokens = 256;  // of a block: part of the result, since blocks are added up in order
constexpr std::int64_t kNarrowRows = 16 * kTileRows;
static_assert(kNarrowPanel == kTileRows);

CARAVAN_INLINE std::int64_t narrow_columns(std::int64_t in) {
  return round_up(in, kTileWidth);
}

std::int64_t narrow_scratch(std::int64_t in) {
  return kNarrowTokens * narrow_columns(in) + kNarrowTokens * kNarrowRows + kTileRows * kTileWidth;
}

// x's rows [first, first + tokens) into tiles [narrow_columns / kTileWidth][tokens][kTileWidth], zeros beyond its
// columns.
void pack_narrow_tiles(const NarrowWeightGrad& args, std::int64_t first, std::int64_t tokens, float* tiles) {
  for (std::int64_t tile = 0; tile < args.in; tile += kTileWidth) {
    float* to = tiles + tile * tokens;
    const float* from = args.x + first * args.x_stride + tile;
    for (std::int64_t k = 0; k < tokens; ++k) {
      CARAVAN_UNROLL
      for (int j = 0; j < kTileVectors; ++j) {
        const std::int64_t left = args.in - tile - j * kLanes;
        const float* vector = from + k * args.x_stride + j * kLanes;
        store(to + k * kTileWidth + j * kLanes, left >= kLanes ? load(vector)
                                                : left > 0     ? F32::load(vector, left)
                                                               : zero());
      }
    }
  }
}

// Columns [column, column + rows) of dy into panels [rows / kTileRows][tokens][kTileRows], zeros beyond `rows`.
void pack_narrow_panels(const NarrowWeightGrad& args, std::int64_t first, std::int64_t tokens, std::int64_t column,
                        std::int64_t rows, float* panels) {
  for (std::int64_t row = 0; row < rows; row += kTileRows) {
    float* to = panels + row * tokens;
    const float* from = args.dy + first * args.dy_stride + column + row;
    const std::int64_t there = least(kTileRows, rows - row);
    for (std::int64_t k = 0; k < tokens; ++k) {
      CARAVAN_UNROLL
      for (int r = 0; r < kTileRows; ++r) {
        to[k * kTileRows + r] = r < there ? from[k * args.dy_stride + r] : 0.0F;
      }
    }
  }
}

// c[r][j] (+)= sum over tokens of panel[k][r] tile[k][j]
CARAVAN_INLINE void narrow_tile(const float* panel, const float* tile, std::int64_t tokens, float* c,
                                std::int64_t stride, bool add) {
  Vec sums[kTileRows][kTileVectors];
  CARAVAN_UNROLL
  for (auto& row : sums) {
    CARAVAN_UNROLL
    for (Vec& one : row) {
      one = zero();
    }
  }
  for (std::int64_t k = 0; k < tokens; ++k) {
    Vec factors[kTileVectors];
    CARAVAN_UNROLL
    for (int j = 0; j < kTileVectors; ++j) {
      factors[j] = load(tile + k * kTileWidth + j * kLanes);
    }
    CARAVAN_UNROLL
    for (int r = 0; r < kTileRows; ++r) {
      const Vec one = set(panel[k * kTileRows + r]);
      CARAVAN_UNROLL
      for (int j = 0; j < kTileVectors; ++j) {
        sums[r][j] = fma(one, factors[j], sums[r][j]);
      }
    }
  }
  CARAVAN_UNROLL
  for (int r = 0; r < kTileRows; ++r) {
    CARAVAN_UNROLL
    for (int j = 0; j < kTileVectors; ++j) {
      float* at = c + r * stride + j * kLanes;
      store(at, add ? load(at) + sums[r][j] : sums[r][j]);
    }
  }
}

// A tile at the edge of dw, by way of a whole one.
CARAVAN_INLINE void narrow_edge(const float* panel, const float* tile, std::int64_t tokens, float* c,
                                std::int64_t stride, std::int64_t rows, std::int64_t columns, bool add, float* whole) {
  narrow_tile(panel, tile, tokens, whole, kTileWidth, false);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const float sum = whole[r * kTileWidth + j];
      c[r * stride + j] = add ? c[r * stride + j] + sum : sum;
    }
  }
}

// Rows [begin, end) of dw.
void narrow_weight_grad(const NarrowWeightGrad& args, std::int64_t begin, std::int64_t end, float* scratch) {
  float* const tiles = scratch;
  float* const panels = tiles + kNarrowTokens * narrow_columns(args.in);
  float* const whole = panels + kNarrowTokens * kNarrowRows;
  for (std::int64_t first = 0; first < args.tokens; first += kNarrowTokens) {
    const std::int64_t tokens = least(kNarrowTokens, args.tokens - first);
    const bool add = args.add || first > 0;
    pack_narrow_tiles(args, first, tokens, tiles);
    for (std::int64_t block = begin; block < end; block += kNarrowRows) {
      const std::int64_t rows = least(kNarrowRows, end - block);
      pack_narrow_panels(args, first, tokens, block, rows, panels);
      for (std::int64_t column = 0; column < args.in; column += kTileWidth) {
        const std::int64_t columns = least(kTileWidth, args.in - column);
        for (std::int64_t row = 0; row < rows; row += kTileRows) {
          const std::int64_t there = least(kTileRows, rows - row);
          float* const c = args.dw + (block + row) * args.dw_stride + column;
          if (there == kTileRows && columns == kTileWidth) {
            narrow_tile(panels + row * tokens, tiles + column * tokens, tokens, c, args.dw_stride, add);
          } else {
            narrow_edge(panels + row * tokens, tiles + column * tokens, tokens, c, args.dw_stride, there, columns, add,
                        whole);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace caravan::ops::cpu

#include "caravan/quant/quantize.h"

#include <fmt/format.h>

#include <array>

#include "caravan/base/error.h"
#include "caravan/base/threads.h"
#include "caravan/quant/block_layout.h"
#include "caravan/quant/fit.h"
#include "caravan/tensor/copy.h"

namespace caravan::quant {
namespace {

// Keeps the scale of the least error.
struct BestScale {
  const float* x;
  float low;
  float high;
  float scale = 0.0F;
  float error = -1.0F;

  void consider(float candidate) {
    const float rounded = as_f16(candidate);
    const float found = symmetric_error(x, kBlock, rounded, low, high);
    if (error < 0.0F || found < error) {
      error = found;
      scale = rounded;
    }
  }
};

// The best f16 scale for codes [low, high], low < 0: by the plain rule the largest element gets the code `low`, or
// `plain` where that is another.  `steps` further scales of either sign let it fall beside the ends of the range, which
// costs it little and helps the others.
float best_symmetric_scale(const float* x, float low, float high, float plain, int steps) {
  const float largest = extreme(x, kBlock);
  if (largest == 0.0F) {
    return 0.0F;
  }
  BestScale best{x, low, high};
  const auto consider = [&](float code) {
    const float scale = largest / code;
    best.consider(scale);
    const CodeSums sums = code_sums(x, kBlock, scale, low, high);
    if (sums.qq > 0.0F) {
      best.consider(sums.xq / sums.qq);
    }
  };
  consider(plain);
  constexpr float kStep = 0.3F;
  for (int step = -steps; step <= steps; ++step) {
    consider(low + kStep * static_cast<float>(step));
    consider(high + kStep * static_cast<float>(step));
  }
  return best.scale;
}

// Best f16 scale and offset for codes [0, high].
Affine best_affine(const float* x, float high) {
  const Range range = range_of(x, kBlock);
  const auto rounded = [](const Affine& exact) { return Affine{as_f16(exact.scale), as_f16(exact.offset)}; };
  Affine best = rounded({(range.high - range.low) / high, range.low});
  float least = affine_error(x, kBlock, best.scale, best.offset, high);
  const auto consider = [&](const Affine& exact) {
    const Affine candidate = rounded(exact);
    const float error = affine_error(x, kBlock, candidate.scale, candidate.offset, high);
    if (error < least) {
      least = error;
      best = candidate;
    }
  };
  // The range shrinks towards its middle: the two ends are clipped, the steps between become finer.
  constexpr int kShrinks = 7;
  constexpr float kShrink = 0.03F;
  for (int step = 0; step < kShrinks; ++step) {
    const float cut = kShrink * static_cast<float>(step) * (range.high - range.low);
    Affine guess{(range.high - range.low - 2.0F * cut) / high, range.low + cut};
    for (int pass = 0; pass < 2; ++pass) {
      guess = refit(x, kBlock, guess, high, /*not_above_zero=*/false);
      consider(guess);
    }
  }
  return best;
}

using Codes = std::array<std::uint8_t, kBlock>;

// Codes of x / scale, counted from `low` up.
Codes symmetric_codes(const float* x, float scale, float low, float high) {
  const float by = inverse(scale);
  Codes codes;
  for (int i = 0; i < kBlock; ++i) {
    codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(nearest_code(x[i] * by, low, high) - low);
  }
  return codes;
}

Codes affine_codes(const float* x, const Affine& fit, float high) {
  const float by = inverse(fit.scale);
  Codes codes;
  for (int i = 0; i < kBlock; ++i) {
    codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(nearest_code((x[i] - fit.offset) * by, 0.0F, high));
  }
  return codes;
}

// The low four bits of 32 codes as 16 bytes, and behind or before them nothing: high bits go elsewhere.
void store_nibbles(std::byte* at, const Codes& codes) {
  for (std::size_t i = 0; i < kBlock / 2; ++i) {
    at[i] = std::byte((codes[i] & 15U) | ((codes[i + kBlock / 2] & 15U) << 4));
  }
}

void store_fifth_bits(std::byte* at, const Codes& codes) {
  for (std::size_t i = 0; i < kBlock / 8; ++i) {
    unsigned bits = 0;
    for (std::size_t j = 0; j < 8; ++j) {
      bits |= static_cast<unsigned>(codes[8 * i + j] >> 4) << j;
    }
    at[i] = std::byte(bits);
  }
}

void quantize_q8_0(const float* x, std::byte* block) {
  constexpr float kLow = -128.0F;
  constexpr float kHigh = 127.0F;
  const float scale = best_symmetric_scale(x, kLow, kHigh, kHigh, 1);
  const float by = inverse(scale);
  store_f16(block, scale);
  for (int i = 0; i < kBlock; ++i) {
    block[2 + i] = std::byte(static_cast<std::uint8_t>(static_cast<int>(nearest_code(x[i] * by, kLow, kHigh))));
  }
}

void quantize_q4_0(const float* x, std::byte* block) {
  const float scale = best_symmetric_scale(x, -8.0F, 7.0F, -8.0F, 5);
  store_f16(block, scale);
  store_nibbles(block + 2, symmetric_codes(x, scale, -8.0F, 7.0F));
}

void quantize_q5_0(const float* x, std::byte* block) {
  const float scale = best_symmetric_scale(x, -16.0F, 15.0F, -16.0F, 5);
  const Codes codes = symmetric_codes(x, scale, -16.0F, 15.0F);
  store_f16(block, scale);
  store_fifth_bits(block + 2, codes);
  store_nibbles(block + 6, codes);
}

void quantize_q4_1(const float* x, std::byte* block) {
  const Affine fit = best_affine(x, 15.0F);
  store_f16(block, fit.scale);
  store_f16(block + 2, fit.offset);
  store_nibbles(block + 4, affine_codes(x, fit, 15.0F));
}

void quantize_q5_1(const float* x, std::byte* block) {
  const Affine fit = best_affine(x, 31.0F);
  const Codes codes = affine_codes(x, fit, 31.0F);
  store_f16(block, fit.scale);
  store_f16(block + 2, fit.offset);
  store_fifth_bits(block + 4, codes);
  store_nibbles(block + 8, codes);
}

template <typename Block>
void each_block(const float* x, std::byte* blocks, std::int64_t elements, const TypeFacts& type, const Block& block) {
  for (std::int64_t i = 0; i < elements / type.elements; ++i) {
    block(x + i * type.elements, blocks + i * type.bytes);
  }
}

}  // namespace

void quantize(BlockType type, const float* values, std::byte* blocks, std::int64_t elements) {
  const TypeFacts& shape = facts(type);
  if (elements < 0 || elements % shape.elements != 0) {
    throw ShapeError(
        fmt::format("quantize: {} elements are no multiple of {}'s block of {}", elements, shape.name, shape.elements));
  }
  if (const auto dtype = plain_dtype(type)) {
    convert_elements(*dtype, blocks, DType::kF32, reinterpret_cast<const std::byte*>(values), elements);
    return;
  }
  switch (type) {
    case BlockType::kQ80:
      return each_block(values, blocks, elements, shape, quantize_q8_0);
    case BlockType::kQ40:
      return each_block(values, blocks, elements, shape, quantize_q4_0);
    case BlockType::kQ41:
      return each_block(values, blocks, elements, shape, quantize_q4_1);
    case BlockType::kQ50:
      return each_block(values, blocks, elements, shape, quantize_q5_0);
    case BlockType::kQ51:
      return each_block(values, blocks, elements, shape, quantize_q5_1);
    case BlockType::kQ4K:
      return each_block(values, blocks, elements, shape, quantize_q4_k);
    case BlockType::kQ6K:
      return each_block(values, blocks, elements, shape, quantize_q6_k);
    default:
      throw UnsupportedError(fmt::format("quantize: {} is not a type that can be written", shape.name));
  }
}

void quantize_rows(BlockType type, const float* values, std::int64_t rows, std::int64_t columns, std::byte* blocks,
                   int threads) {
  const auto bytes = row_bytes(facts(type), columns);
  if (!bytes || rows < 0) {
    throw ShapeError(
        fmt::format("quantize_rows: {} rows of {} elements cannot be {}", rows, columns, facts(type).name));
  }
  constexpr std::int64_t kGrain = 1 << 10;  // elements that are worth waking a thread for
  parallel_for(threads, rows, kGrain / (columns + 1) + 1, [&](std::int64_t first, std::int64_t last) {
    quantize(type, values + first * columns, blocks + first * *bytes, (last - first) * columns);
  });
}

}  // namespace caravan::quant

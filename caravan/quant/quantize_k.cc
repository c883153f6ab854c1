// Q4_K and Q6_K: scales of small groups in units of one f16 scale of 256 numbers.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "caravan/quant/block_layout.h"
#include "caravan/quant/fit.h"

namespace caravan::quant {
namespace {

// How often scales of groups and of the block are fitted to each other in turn.
constexpr int kRounds = 3;

// --- Q4_K: x ~ d * s * q - dmin * o, eight groups of 32, q in [0, 15], s and o in [0, 63].

constexpr int kGroups4 = 8;
constexpr int kGroup4 = 32;
constexpr float kHigh4 = 15.0F;
constexpr int kLargest4 = 63;

struct Q4KBlock {
  float d = 0.0F;
  float dmin = 0.0F;
  KScales scales{};
  float error = 0.0F;

  Affine group(int g) const {
    const auto at = static_cast<std::size_t>(g);
    return {d * static_cast<float>(scales.scale[at]), -(dmin * static_cast<float>(scales.offset[at]))};
  }
};

// The best scale and offset (not above zero) of one group, not yet in units of anything.
Affine best_group_fit(const float* x) {
  Range range = range_of(x, kGroup4);
  range.low = std::min(range.low, 0.0F);
  Affine best{(range.high - range.low) / kHigh4, range.low};
  if (!(best.scale > 0.0F)) {
    return best;  // one value for all, below or at zero
  }
  float least = affine_error(x, kGroup4, best.scale, best.offset, kHigh4);
  constexpr int kSteps = 10;
  constexpr float kStep = 0.3F;
  for (int step = 0; step < kSteps; ++step) {
    // A range of more than 15 steps clips the ends, one of fewer leaves codes unused.
    Affine guess{(range.high - range.low) / (kHigh4 - 1.0F + kStep * static_cast<float>(step)), range.low};
    for (int pass = 0; pass < 2; ++pass) {
      guess = refit(x, kGroup4, guess, kHigh4, /*not_above_zero=*/true);
      const float error = affine_error(x, kGroup4, guess.scale, guess.offset, kHigh4);
      if (error < least) {
        least = error;
        best = guess;
      }
    }
  }
  return best;
}

std::uint8_t in_units(float value, float unit, int largest) {
  return static_cast<std::uint8_t>(nearest_code(value * inverse(unit), 0.0F, static_cast<float>(largest)));
}

// Chooses each group's s and o for the block's d and dmin: those nearest to `wanted`, and their neighbours.
void choose_scales(const float* x, Q4KBlock& block, const std::array<Affine, kGroups4>& wanted) {
  block.error = 0.0F;
  for (int g = 0; g < kGroups4; ++g) {
    const auto at = static_cast<std::size_t>(g);
    const int scale = in_units(wanted[at].scale, block.d, kLargest4);
    const int offset = in_units(-wanted[at].offset, block.dmin, kLargest4);
    float least = -1.0F;
    for (int s = std::max(0, scale - 1); s <= std::min(kLargest4, scale + 1); ++s) {
      for (int o = std::max(0, offset - 1); o <= std::min(kLargest4, offset + 1); ++o) {
        const float error = affine_error(x + kGroup4 * g, kGroup4, block.d * static_cast<float>(s),
                                         -(block.dmin * static_cast<float>(o)), kHigh4);
        if (least < 0.0F || error < least) {
          least = error;
          block.scales.scale[at] = static_cast<std::uint8_t>(s);
          block.scales.offset[at] = static_cast<std::uint8_t>(o);
        }
      }
    }
    block.error += least;
  }
}

// d and dmin by least squares for the groups' s, o and codes: x ~ d * (s q) - dmin * o.
bool refit_units(const float* x, Q4KBlock& block) {
  double aa = 0.0;
  double ab = 0.0;
  double bb = 0.0;
  double xa = 0.0;
  double xb = 0.0;
  for (int g = 0; g < kGroups4; ++g) {
    const auto at = static_cast<std::size_t>(g);
    const Affine fit = block.group(g);
    const float by = inverse(fit.scale);
    const float b = -static_cast<float>(block.scales.offset[at]);
    for (int i = kGroup4 * g; i < kGroup4 * (g + 1); ++i) {
      const float a = static_cast<float>(block.scales.scale[at]) * nearest_code((x[i] - fit.offset) * by, 0.0F, kHigh4);
      aa += static_cast<double>(a) * a;
      ab += static_cast<double>(a) * b;
      bb += static_cast<double>(b) * b;
      xa += static_cast<double>(x[i]) * a;
      xb += static_cast<double>(x[i]) * b;
    }
  }
  const double determinant = aa * bb - ab * ab;
  double d = block.d;
  double dmin = block.dmin;
  if (determinant > 1e-9 * aa * bb && bb > 0.0) {
    d = (xa * bb - xb * ab) / determinant;
    dmin = (xb * aa - xa * ab) / determinant;
  } else if (aa > 0.0) {
    d = (xa - dmin * ab) / aa;
  }
  if (!(d > 0.0) || !(dmin >= 0.0)) {
    return false;
  }
  block.d = as_f16(static_cast<float>(d));
  block.dmin = as_f16(static_cast<float>(dmin));
  return true;
}

Q4KBlock fit_q4_k(const float* x) {
  std::array<Affine, kGroups4> wanted;
  float largest_scale = 0.0F;
  float largest_offset = 0.0F;
  for (int g = 0; g < kGroups4; ++g) {
    const Affine fit = best_group_fit(x + kGroup4 * g);
    wanted[static_cast<std::size_t>(g)] = fit;
    largest_scale = std::max(largest_scale, fit.scale);
    largest_offset = std::max(largest_offset, -fit.offset);
  }
  Q4KBlock block;
  block.d = as_f16(largest_scale / static_cast<float>(kLargest4));
  block.dmin = as_f16(largest_offset / static_cast<float>(kLargest4));
  choose_scales(x, block, wanted);
  Q4KBlock best = block;
  for (int round = 0; round < kRounds; ++round) {
    if (!refit_units(x, block)) {
      break;
    }
    choose_scales(x, block, wanted);
    if (!(block.error < best.error)) {
      break;
    }
    best = block;
  }
  return best;
}

// --- Q6_K: x ~ d * s * q, sixteen groups of 16, q in [-32, 31], s in [-128, 127].

constexpr int kGroups6 = 16;
constexpr int kGroup6 = 16;
constexpr float kLow6 = -32.0F;
constexpr float kHigh6 = 31.0F;

struct Q6KBlock {
  float d = 0.0F;
  std::array<std::int8_t, kGroups6> scale{};
  float error = 0.0F;
};

float best_group_scale(const float* x) {
  const float largest = extreme(x, kGroup6);
  if (largest == 0.0F) {
    return 0.0F;
  }
  float best = 0.0F;
  float least = -1.0F;
  constexpr int kSteps = 4;
  constexpr float kStep = 0.4F;
  for (int step = -kSteps; step <= kSteps; ++step) {
    for (const float end : {kLow6, kHigh6}) {
      const CodeSums sums = code_sums(x, kGroup6, largest / (end + kStep * static_cast<float>(step)), kLow6, kHigh6);
      if (!(sums.qq > 0.0F)) {
        continue;
      }
      const float scale = sums.xq / sums.qq;
      const float error = symmetric_error(x, kGroup6, scale, kLow6, kHigh6);
      if (least < 0.0F || error < least) {
        least = error;
        best = scale;
      }
    }
  }
  return best;
}

void choose_scales(const float* x, Q6KBlock& block, const std::array<float, kGroups6>& wanted) {
  constexpr int kLowest = -128;
  constexpr int kLargest = 127;
  block.error = 0.0F;
  for (int g = 0; g < kGroups6; ++g) {
    const auto at = static_cast<std::size_t>(g);
    const int near = static_cast<int>(nearest_code(wanted[at] * inverse(block.d), kLowest, kLargest));
    float least = -1.0F;
    for (int s = std::max(kLowest, near - 2); s <= std::min(kLargest, near + 2); ++s) {
      const float error = symmetric_error(x + kGroup6 * g, kGroup6, block.d * static_cast<float>(s), kLow6, kHigh6);
      if (least < 0.0F || error < least) {
        least = error;
        block.scale[at] = static_cast<std::int8_t>(s);
      }
    }
    block.error += least;
  }
}

bool refit_unit(const float* x, Q6KBlock& block) {
  double xa = 0.0;
  double aa = 0.0;
  for (int g = 0; g < kGroups6; ++g) {
    const float s = block.scale[static_cast<std::size_t>(g)];
    const float by = inverse(block.d * s);
    for (int i = kGroup6 * g; i < kGroup6 * (g + 1); ++i) {
      const float a = s * nearest_code(x[i] * by, kLow6, kHigh6);
      xa += static_cast<double>(x[i]) * a;
      aa += static_cast<double>(a) * a;
    }
  }
  if (!(aa > 0.0)) {
    return false;
  }
  block.d = as_f16(static_cast<float>(xa / aa));
  return true;
}

Q6KBlock fit_q6_k(const float* x) {
  std::array<float, kGroups6> wanted;
  for (int g = 0; g < kGroups6; ++g) {
    wanted[static_cast<std::size_t>(g)] = best_group_scale(x + kGroup6 * g);
  }
  const float largest = extreme(wanted.data(), kGroups6);
  Q6KBlock best;
  best.error = -1.0F;
  // The largest scale as -128 or as 127 units.
  for (const float end : {-128.0F, 127.0F}) {
    Q6KBlock block;
    block.d = as_f16(largest / end);
    for (int round = 0; round <= kRounds; ++round) {
      choose_scales(x, block, wanted);
      if (!(best.error < 0.0F || block.error < best.error)) {
        break;
      }
      best = block;
      if (!refit_unit(x, block)) {
        break;
      }
    }
  }
  return best;
}

}  // namespace

void quantize_q4_k(const float* x, std::byte* block) {
  const Q4KBlock fit = fit_q4_k(x);
  store_f16(block, fit.d);
  store_f16(block + 2, fit.dmin);
  pack_k_scales(block + 4, fit.scales);
  for (int g = 0; g < kGroups4; ++g) {
    const Affine group = fit.group(g);
    const float by = inverse(group.scale);
    std::byte* codes = block + 4 + kKScaleBytes + g / 2 * kGroup4;
    for (int i = 0; i < kGroup4; ++i) {
      const auto q = static_cast<unsigned>(nearest_code((x[kGroup4 * g + i] - group.offset) * by, 0.0F, kHigh4));
      codes[i] = g % 2 == 0 ? std::byte(q) : codes[i] | std::byte(q << 4);
    }
  }
}

void quantize_q6_k(const float* x, std::byte* block) {
  const Q6KBlock fit = fit_q6_k(x);
  std::fill_n(block, 192, std::byte{0});
  for (int g = 0; g < kGroups6; ++g) {
    const float by = inverse(fit.d * static_cast<float>(fit.scale[static_cast<std::size_t>(g)]));
    for (int i = kGroup6 * g; i < kGroup6 * (g + 1); ++i) {
      const auto q = static_cast<unsigned>(nearest_code(x[i] * by, kLow6, kHigh6) - kLow6);
      block[i / 128 * 64 + i % 64] |= std::byte((q & 15U) << (i % 128 / 64 * 4));
      block[128 + i / 128 * 32 + i % 32] |= std::byte((q >> 4) << (i % 128 / 32 * 2));
    }
    block[192 + g] = std::byte(static_cast<std::uint8_t>(fit.scale[static_cast<std::size_t>(g)]));
  }
  store_f16(block + 208, fit.d);
}

}  // namespace caravan::quant

// Scales and codes by least squares over a few numbers: the arithmetic that all quantisers share.  Private to this room.
#pragma once

#include <cmath>

#include "caravan/tensor/dtype.h"

namespace caravan::quant {

// The largest finite f16.
constexpr float kF16Max = 65504.0F;

// To nearest even, for magnitudes below 2^22.
inline float round_even(float value) {
  constexpr float kMagic = 12582912.0F;  // 1.5 * 2^23: adding it shifts the fraction out
  return (value + kMagic) - kMagic;
}

// The code nearest to `value` among the whole numbers [low, high]; NaN gives `low`.
inline float nearest_code(float value, float low, float high) {
  const float above = value > low ? value : low;
  return round_even(above < high ? above : high);
}

// As the file keeps it; finite whatever comes.
inline float as_f16(float value) {
  const float clamped = value > kF16Max ? kF16Max : value;
  return static_cast<float>(Float16(clamped < -kF16Max ? -kF16Max : clamped));
}

// 1 / scale, or 0 for a scale of 0 or one whose inverse is infinite: all codes are those of 0 then.
inline float inverse(float scale) {
  const float result = 1.0F / scale;
  return scale != 0.0F && std::isfinite(result) ? result : 0.0F;
}

// The sums over x[0, n) and the codes q = nearest(x / scale) that a refit needs.
struct CodeSums {
  float xq = 0.0F;
  float qq = 0.0F;
};
inline CodeSums code_sums(const float* x, int n, float scale, float low, float high) {
  const float by = inverse(scale);
  CodeSums sums;
  for (int i = 0; i < n; ++i) {
    const float q = nearest_code(x[i] * by, low, high);
    sums.xq += x[i] * q;
    sums.qq += q * q;
  }
  return sums;
}

// The sum of (x - scale * q)^2 with the best codes.
inline float symmetric_error(const float* x, int n, float scale, float low, float high) {
  const float by = inverse(scale);
  float error = 0.0F;
  for (int i = 0; i < n; ++i) {
    const float rest = x[i] - scale * nearest_code(x[i] * by, low, high);
    error += rest * rest;
  }
  return error;
}

// The sum of (x - (scale * q + offset))^2 with the best codes of [0, high].
inline float affine_error(const float* x, int n, float scale, float offset, float high) {
  const float by = inverse(scale);
  float error = 0.0F;
  for (int i = 0; i < n; ++i) {
    const float rest = x[i] - (scale * nearest_code((x[i] - offset) * by, 0.0F, high) + offset);
    error += rest * rest;
  }
  return error;
}

// x ~ scale * q + offset.
struct Affine {
  float scale = 0.0F;
  float offset = 0.0F;
};

// Least squares for the codes that `guess` gives.  `not_above_zero`: the offset may not be positive (the K types
// subtract theirs).  The guess itself where the codes are all alike.
inline Affine refit(const float* x, int n, const Affine& guess, float high, bool not_above_zero) {
  const float by = inverse(guess.scale);
  float q1 = 0.0F;
  float q2 = 0.0F;
  float x1 = 0.0F;
  float xq = 0.0F;
  for (int i = 0; i < n; ++i) {
    const float q = nearest_code((x[i] - guess.offset) * by, 0.0F, high);
    q1 += q;
    q2 += q * q;
    x1 += x[i];
    xq += x[i] * q;
  }
  const float determinant = static_cast<float>(n) * q2 - q1 * q1;
  if (!(determinant > 0.0F)) {
    return guess;
  }
  Affine result{(static_cast<float>(n) * xq - x1 * q1) / determinant, (q2 * x1 - q1 * xq) / determinant};
  if (not_above_zero && result.offset > 0.0F) {
    result = {xq / q2, 0.0F};
  }
  return result.scale > 0.0F ? result : guess;
}

struct Range {
  float low = 0.0F;
  float high = 0.0F;
};
inline Range range_of(const float* x, int n) {
  Range range{x[0], x[0]};
  for (int i = 1; i < n; ++i) {
    range.low = x[i] < range.low ? x[i] : range.low;
    range.high = x[i] > range.high ? x[i] : range.high;
  }
  return range;
}

// The element of the largest magnitude, with its sign; 0 for zeros.
inline float extreme(const float* x, int n) {
  float result = 0.0F;
  for (int i = 0; i < n; ++i) {
    result = std::fabs(x[i]) > std::fabs(result) ? x[i] : result;
  }
  return result;
}

// The K types' quantisers (quantize_k.cc), one block of 256 each.
void quantize_q4_k(const float* x, std::byte* block);
void quantize_q6_k(const float* x, std::byte* block);

}  // namespace caravan::quant

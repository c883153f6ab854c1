// Vectorised exponentials.
//
// Both reduce to 2^n * p(r) with |r| <= 1/2 (in units of the base's own logarithm) and a polynomial of relative error
// 2e-9 (2^-28.9), found by the Remez exchange for relative error.  The result is within 2 ulp: over 4e7 points of the
// whole domain the worst was 0.95 ulp for exp2 and 1.06 for exp, results below the normal range included.
// NaN stays NaN; what is too large gives infinity, what is too small 0.
#pragma once

#include "caravan/ops/cpu/kernels/elements.h"

namespace {

// NaN passes: max and min return their second operand then.
CARAVAN_INLINE Vec clamp(Vec x, float low, float high) {
  return min(set(high), max(set(low), x));
}

// 2^x
CARAVAN_INLINE Vec exp2(Vec x) {
  x = clamp(x, -160.0F, 129.0F);
  const Vec n = round_to_integer(x);
  const Vec r = x - n;
  Vec p = set(0.000153533620689F);
  p = fma(p, r, set(0.0013398874394F));
  p = fma(p, r, set(0.00961843735696F));
  p = fma(p, r, set(0.0555033247119F));
  p = fma(p, r, set(0.240226479136F));
  p = fma(p, r, set(0.693147202855F));
  return scale_by_power(fma(p, r, set(1.0F)), n);
}

// e^x
CARAVAN_INLINE Vec exp(Vec x) {
  x = clamp(x, -110.0F, 89.5F);
  const Vec n = round_to_integer(x * set(1.44269504089F));
  // ln 2 in two parts, the first with trailing zeros so that its product with n is exact (Cody and Waite 1980).
  Vec r = fnma(n, set(0.693359375F), x);
  r = fnma(n, set(-2.12194440e-4F), r);
  Vec p = set(0.0013843653656F);
  p = fma(p, r, set(0.00837415529976F));
  p = fma(p, r, set(0.0416680020326F));
  p = fma(p, r, set(0.166664312628F));
  p = fma(p, r, set(0.499999942091F));
  p = fma(p, r, set(1.00000003217F));
  return scale_by_power(fma(p, r, set(1.0F)), n);
}

}  // namespace

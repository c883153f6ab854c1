// Rotary tables and the rotation itself.
#pragma once

#include "caravan/ops/cpu/kernels/functions.h"

namespace caravan::ops::cpu {
namespace {

// (a, b) -> (a c - b s, b c + a s)
struct Pair {
  Vec a, b;
};
CARAVAN_INLINE Pair turned(Vec a, Vec b, Vec c, Vec s) {
  return {fnma(b, s, a * c), fma(a, s, b * c)};
}

template <typename E>
CARAVAN_INLINE void turn_halves(const typename E::Stored* x, typename E::Stored* y, const float* cos, const float* sin,
                                std::int64_t half, Vec sign) {
  each_vector(
      half,
      [&](std::int64_t i) {
        const Pair p = turned(E::load(x + i), E::load(x + half + i), load(cos + i), sign * load(sin + i));
        E::store(y + i, p.a);
        E::store(y + half + i, p.b);
      },
      [&](std::int64_t i, std::int64_t n) {
        const Pair p =
            turned(E::load(x + i, n), E::load(x + half + i, n), F32::load(cos + i, n), sign * F32::load(sin + i, n));
        E::store(y + i, p.a, n);
        E::store(y + half + i, p.b, n);
      });
}

template <typename E>
CARAVAN_INLINE void turn_neighbours(const typename E::Stored* x, typename E::Stored* y, const float* cos,
                                    const float* sin, std::int64_t half, Vec sign) {
  Vec evens;
  Vec odds;
  each_vector(
      half,
      [&](std::int64_t i) {
        split_pairs(E::load(x + 2 * i), E::load(x + 2 * i + kLanes), evens, odds);
        const Pair p = turned(evens, odds, load(cos + i), sign * load(sin + i));
        join_pairs(p.a, p.b, evens, odds);
        E::store(y + 2 * i, evens);
        E::store(y + 2 * i + kLanes, odds);
      },
      [&](std::int64_t i, std::int64_t n) {
        const std::int64_t first = 2 * n < kLanes ? 2 * n : kLanes;
        const std::int64_t second = 2 * n - first;
        split_pairs(E::load(x + 2 * i, first), second > 0 ? E::load(x + 2 * i + kLanes, second) : zero(), evens, odds);
        const Pair p = turned(evens, odds, F32::load(cos + i, n), sign * F32::load(sin + i, n));
        join_pairs(p.a, p.b, evens, odds);
        E::store(y + 2 * i, evens, first);
        if (second > 0) {
          E::store(y + 2 * i + kLanes, odds, second);
        }
      });
}

template <typename E>
void rope_rows(const RopeRows& args, std::int64_t begin, std::int64_t end) {
  const Vec sign = set(args.inverse ? -1.0F : 1.0F);
  for (std::int64_t row = begin; row < end; ++row) {
    const float* cos = args.cos + row * args.half;
    const float* sin = args.sin + row * args.half;
    for (std::int64_t head = 0; head < args.heads; ++head) {
      const auto* x = row_of<E>(args.x, row) + head * 2 * args.half;
      auto* y = row_of<E>(args.y, row) + head * 2 * args.half;
      if (args.interleaved) {
        turn_neighbours<E>(x, y, cos, sin, args.half, sign);
      } else {
        turn_halves<E>(x, y, cos, sin, args.half, sign);
      }
    }
  }
}

void rope(const RopeRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) { rope_rows<decltype(e)>(args, begin, end); });
}

// sin and cos of x in double for |x| up to 2^31: reduced by multiples of pi/2 in two parts (the first subtraction is
// exact under fma, the second part leaves 2^-107 n), then the Taylor series on [-pi/4, pi/4], whose first term left out
// is below 3e-17.  So the f32 made of the result is the right one but for one case in about 2^28.
CARAVAN_INLINE void sine_and_cosine(Wide x, Wide& s, Wide& c) {
  const Wide n = round_to_integer(x * wide_set(0.63661977236758134308));
  Wide r = fnma(n, wide_set(1.5707963267948965580), x);
  r = fnma(n, wide_set(6.1232339957367660359e-17), r);
  const Wide z = r * r;
  Wide p = wide_set(-1.0 / 1307674368000.0);
  p = fma(p, z, wide_set(1.0 / 6227020800.0));
  p = fma(p, z, wide_set(-1.0 / 39916800.0));
  p = fma(p, z, wide_set(1.0 / 362880.0));
  p = fma(p, z, wide_set(-1.0 / 5040.0));
  p = fma(p, z, wide_set(1.0 / 120.0));
  p = fma(p, z, wide_set(-1.0 / 6.0));
  s = fma(p * z, r, r);
  p = wide_set(1.0 / 20922789888000.0);
  p = fma(p, z, wide_set(-1.0 / 87178291200.0));
  p = fma(p, z, wide_set(1.0 / 479001600.0));
  p = fma(p, z, wide_set(-1.0 / 3628800.0));
  p = fma(p, z, wide_set(1.0 / 40320.0));
  p = fma(p, z, wide_set(-1.0 / 720.0));
  p = fma(p, z, wide_set(1.0 / 24.0));
  p = fma(p, z, wide_set(-0.5));
  c = fma(p, z, wide_set(1.0));
  turn_quarters(n, s, c);
}

// `count` <= kLanes values of one token.
template <typename E>
CARAVAN_INLINE void table_vector(const RopeTableRows& args, Vec position, const float* frequency, float* cos,
                                 float* sin, std::int64_t count) {
  float angle[kLanes];
  float c[kLanes];
  float s[kLanes];
  store(angle, position * F32::load(frequency, count));
  for (int i = 0; i < kLanes; i += kWideLanes) {
    Wide wide_s;
    Wide wide_c;
    sine_and_cosine(wide_load(angle + i), wide_s, wide_c);
    wide_store(s + i, wide_s);
    wide_store(c + i, wide_c);
  }
  const Vec scaling = set(args.attention_scaling);
  F32::store(cos, E::round(load(c) * scaling), count);
  F32::store(sin, E::round(load(s) * scaling), count);
}

template <typename E>
void table_rows(const RopeTableRows& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    float* cos = args.cos + row * args.half;
    float* sin = args.sin + row * args.half;
    if (args.positions[row] < 0) {
      for (std::int64_t i = 0; i < args.half; ++i) {
        cos[i] = 1.0F;
        sin[i] = 0.0F;
      }
      continue;
    }
    const float* frequency = args.frequencies + args.kind[row] * args.half;
    const Vec position = set(static_cast<float>(args.positions[row]));
    for (std::int64_t i = 0; i < args.half; i += kLanes) {
      const std::int64_t n = args.half - i < kLanes ? args.half - i : kLanes;
      table_vector<E>(args, position, frequency + i, cos + i, sin + i, n);
    }
  }
}

void rope_tables(const RopeTableRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.rounded_to, [&](auto e) { table_rows<decltype(e)>(args, begin, end); });
}

}  // namespace
}  // namespace caravan::ops::cpu

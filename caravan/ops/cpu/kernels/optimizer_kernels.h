// AdamW in one pass, and sums of squares in f64.
#pragma once

#include "caravan/ops/cpu/kernels/functions.h"

namespace caravan::ops::cpu {
namespace {

// Every product and sum is rounded, as torch rounds them: nothing is fused.
void adamw(const AdamWElements& args, std::int64_t begin, std::int64_t end) {
  const Vec gradient_scale = set(args.gradient_scale);
  const Vec kept = set(args.kept);
  const Vec one_less_beta1 = set(args.one_less_beta1);
  const Vec beta2 = set(args.beta2);
  const Vec one_less_beta2 = set(args.one_less_beta2);
  const Vec root_correction = set(args.root_correction);
  const Vec eps = set(args.eps);
  const Vec step_size = set(args.step_size);
  for (std::int64_t i = begin; i < end; i += kLanes) {
    const std::int64_t n = end - i < kLanes ? end - i : kLanes;
    const Vec g = F32::load(args.gradient + i, n) * gradient_scale;
    const Vec m_before = F32::load(args.m + i, n);
    const Vec m = m_before + one_less_beta1 * (g - m_before);
    const Vec v = F32::load(args.v + i, n) * beta2 + one_less_beta2 * g * g;
    const Vec divisor = square_root(v) / root_correction + eps;
    const Vec p = F32::load(args.master + i, n) * kept - step_size * m / divisor;
    F32::store(args.m + i, m, n);
    F32::store(args.v + i, v, n);
    F32::store(args.master + i, p, n);
  }
}

template <typename E>
double sum_of_squares_wide(const typename E::Stored* x, std::int64_t count) {
  constexpr int kWides = kLanes / kWideLanes;
  Wide sums[2 * kWides];
  for (Wide& one : sums) {
    one = wide_set(0.0);
  }
  for (std::int64_t i = 0; i < count; i += 2 * kLanes) {
    float lanes[2 * kLanes];
    for (int half = 0; half < 2; ++half) {
      const std::int64_t left = count - i - half * kLanes;
      store(lanes + half * kLanes, left >= kLanes ? E::load(x + i + half * kLanes)
                                   : left > 0     ? E::load(x + i + half * kLanes, left)
                                                  : zero());
    }
    for (int k = 0; k < 2 * kWides; ++k) {
      const Wide one = wide_load(lanes + k * kWideLanes);
      sums[k] = fma(one, one, sums[k]);
    }
  }
  Wide total = sums[0];
  for (int k = 1; k < 2 * kWides; ++k) {
    total = total + sums[k];
  }
  return sum(total);
}

void squares(const SquareBlocks& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) {
    using E = decltype(e);
    const auto* x = static_cast<const typename E::Stored*>(args.x);
    for (std::int64_t b = begin; b < end; ++b) {
      const std::int64_t left = args.count - b * args.block;
      args.sums[b] = sum_of_squares_wide<E>(x + b * args.block, left < args.block ? left : args.block);
    }
  });
}

}  // namespace
}  // namespace caravan::ops::cpu

// The kernels that walk rows once or twice: norm, gated activation, conversions, the loss's running sums.
#pragma once

#include "caravan/ops/cpu/kernels/functions.h"

namespace caravan::ops::cpu {
namespace {

CARAVAN_INLINE float square_root(float x) {
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
}

template <typename E>
float sum_of_squares(const typename E::Stored* x, std::int64_t count) {
  // Four sums hide the latency of the addition and shorten the chain of roundings.
  Vec a = zero();
  Vec b = zero();
  Vec c = zero();
  Vec d = zero();
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    const Vec x0 = E::load(x + i);
    const Vec x1 = E::load(x + i + kLanes);
    const Vec x2 = E::load(x + i + 2 * kLanes);
    const Vec x3 = E::load(x + i + 3 * kLanes);
    a = fma(x0, x0, a);
    b = fma(x1, x1, b);
    c = fma(x2, x2, c);
    d = fma(x3, x3, d);
  }
  for (; i + kLanes <= count; i += kLanes) {
    const Vec x0 = E::load(x + i);
    a = fma(x0, x0, a);
  }
  if (i < count) {
    const Vec x0 = E::load(x + i, count - i);
    b = fma(x0, x0, b);
  }
  return sum((a + b) + (c + d));
}

template <typename E>
void rms_norm_rows(const RmsNormRows& args, std::int64_t begin, std::int64_t end) {
  const auto* w = static_cast<const typename E::Stored*>(args.w);
  for (std::int64_t row = begin; row < end; ++row) {
    const auto* x = row_of<E>(args.x, row);
    auto* y = row_of<E>(args.y, row);
    const float mean = sum_of_squares<E>(x, args.features) / static_cast<float>(args.features);
    const float rstd = 1.0F / square_root(mean + args.eps);
    if (args.rstd != nullptr) {
      args.rstd[row] = rstd;
    }
    const Vec scale = set(rstd);
    if (args.round_before_weight) {
      each_vector(
          args.features, [&](std::int64_t i) { E::store(y + i, E::round(E::load(x + i) * scale) * E::load(w + i)); },
          [&](std::int64_t i, std::int64_t n) {
            E::store(y + i, E::round(E::load(x + i, n) * scale) * E::load(w + i, n), n);
          });
    } else {
      each_vector(
          args.features, [&](std::int64_t i) { E::store(y + i, E::load(x + i) * scale * E::load(w + i)); },
          [&](std::int64_t i, std::int64_t n) { E::store(y + i, E::load(x + i, n) * scale * E::load(w + i, n), n); });
    }
  }
}

void rms_norm(const RmsNormRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) { rms_norm_rows<decltype(e)>(args, begin, end); });
}

CARAVAN_INLINE Vec gated(Vec gate, Vec up) {
  return gate / (set(1.0F) + exp(zero() - gate)) * up;
}

template <typename E>
void swiglu_rows(const SwigluRows& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const auto* gate = row_of<E>(args.gate_up, row);
    const auto* up = gate + args.features;
    auto* y = row_of<E>(args.y, row);
    each_vector(
        args.features, [&](std::int64_t i) { E::store(y + i, gated(E::load(gate + i), E::load(up + i))); },
        [&](std::int64_t i, std::int64_t n) { E::store(y + i, gated(E::load(gate + i, n), E::load(up + i, n)), n); });
  }
}

void swiglu(const SwigluRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) { swiglu_rows<decltype(e)>(args, begin, end); });
}

template <typename E, typename B>
void epilogue_rows(const EpilogueRows& args, std::int64_t begin, std::int64_t end) {
  const auto* bias = static_cast<const typename B::Stored*>(args.bias);
  for (std::int64_t row = begin; row < end; ++row) {
    const float* product = row_of<F32>(args.product, row);
    const typename E::Stored* residual = args.residual.data == nullptr ? nullptr : row_of<E>(args.residual, row);
    auto* y = row_of<E>(args.y, row);
    each_vector(
        args.columns,
        [&](std::int64_t i) {
          Vec a = load(product + i);
          a = bias == nullptr ? a : a + B::load(bias + i);
          E::store(y + i, residual == nullptr ? a : a + E::load(residual + i));
        },
        [&](std::int64_t i, std::int64_t n) {
          Vec a = F32::load(product + i, n);
          a = bias == nullptr ? a : a + B::load(bias + i, n);
          E::store(y + i, residual == nullptr ? a : a + E::load(residual + i, n), n);
        });
  }
}

void epilogue(const EpilogueRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) {
    with_element(args.bias_element, [&](auto b) { epilogue_rows<decltype(e), decltype(b)>(args, begin, end); });
  });
}

void widen(const WidenRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) {
    using E = decltype(e);
    for (std::int64_t row = begin; row < end; ++row) {
      const auto* x = row_of<E>(args.x, row);
      float* y = row_of<F32>(args.y, row);
      each_vector(
          args.columns, [&](std::int64_t i) { store(y + i, E::load(x + i)); },
          [&](std::int64_t i, std::int64_t n) { F32::store(y + i, E::load(x + i, n), n); });
    }
  });
}

float row_maximum(const float* x, std::int64_t count) {
  const float lowest = -__builtin_inff();
  Vec a = set(lowest);
  Vec b = set(lowest);
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    a = max(a, load(x + i));
    b = max(b, load(x + i + kLanes));
  }
  for (; i < count; i += kLanes) {
    const Mask some = first_lanes(count - i);
    a = max(a, select(some, load(x + i, some), set(lowest)));
  }
  return maximum(max(a, b));
}

// sum of exp(x - maximum)
float sum_of_exponentials(const float* x, std::int64_t count, float maximum) {
  const Vec shift = set(maximum);
  Vec a = zero();
  Vec b = zero();
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    a = a + exp(load(x + i) - shift);
    b = b + exp(load(x + i + kLanes) - shift);
  }
  for (; i < count; i += kLanes) {
    const Mask some = first_lanes(count - i);
    a = a + select(some, exp(load(x + i, some) - shift), zero());
  }
  return sum(a + b);
}

CARAVAN_INLINE float exponential(float x) {
  float lanes[kLanes];
  store(lanes, exp(set(x)));
  return lanes[0];
}

void loss_block(const LossBlock& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const float* logits = args.logits + row * args.stride;
    LossRowState& state = args.states[row];
    const std::int64_t target = args.targets[row] - args.first;
    if (target >= 0 && target < args.columns) {
      state.target = logits[target];
    }
    const float here = row_maximum(logits, args.columns);
    const float maximum = here > state.maximum ? here : state.maximum;
    state.sum = state.sum == 0.0F ? 0.0F : state.sum * exponential(state.maximum - maximum);
    state.sum += sum_of_exponentials(logits, args.columns, maximum);
    state.maximum = maximum;
  }
}

}  // namespace
}  // namespace caravan::ops::cpu

// The backward of the kernels that walk rows, and the sums over rows that weights of one axis get.
//
// A sum over rows goes down the columns: a call owns columns, adds up a fixed number of rows at a time and adds that to
// the total, in order.  So its bits depend on the shape alone, whichever call owns which columns.
#pragma once

#include "caravan/ops/cpu/kernels/functions.h"

namespace caravan::ops::cpu {
namespace {

template <typename E>
void rms_norm_grad_rows(const RmsNormGradRows& args, std::int64_t begin, std::int64_t end) {
  const auto* w = static_cast<const typename E::Stored*>(args.w);
  for (std::int64_t row = begin; row < end; ++row) {
    const auto* dy = row_of<E>(args.dy, row);
    const auto* x = row_of<E>(args.x, row);
    auto* dx = row_of<E>(args.dx, row);
    // Two sums hide the latency of the addition and shorten the chain of roundings.
    Vec a = zero();
    Vec b = zero();
    std::int64_t i = 0;
    for (; i + 2 * kLanes <= args.features; i += 2 * kLanes) {
      a = fma(E::load(dy + i) * E::load(w + i), E::load(x + i), a);
      b = fma(E::load(dy + i + kLanes) * E::load(w + i + kLanes), E::load(x + i + kLanes), b);
    }
    for (; i < args.features; i += kLanes) {
      const std::int64_t n = args.features - i < kLanes ? args.features - i : kLanes;
      a = fma(E::load(dy + i, n) * E::load(w + i, n), E::load(x + i, n), a);
    }
    const float rstd = args.rstd[row];
    const Vec scale = set(rstd);
    const Vec along = set(rstd * rstd * (sum(a + b) / static_cast<float>(args.features)));
    const auto gradient = [&](Vec dy_i, Vec w_i, Vec x_i) { return scale * fnma(along, x_i, dy_i * w_i); };
    if (args.add) {
      each_vector(
          args.features,
          [&](std::int64_t k) {
            E::store(dx + k, E::load(dx + k) + gradient(E::load(dy + k), E::load(w + k), E::load(x + k)));
          },
          [&](std::int64_t k, std::int64_t n) {
            E::store(dx + k, E::load(dx + k, n) + gradient(E::load(dy + k, n), E::load(w + k, n), E::load(x + k, n)),
                     n);
          });
    } else {
      each_vector(
          args.features,
          [&](std::int64_t k) { E::store(dx + k, gradient(E::load(dy + k), E::load(w + k), E::load(x + k))); },
          [&](std::int64_t k, std::int64_t n) {
            E::store(dx + k, gradient(E::load(dy + k, n), E::load(w + k, n), E::load(x + k, n)), n);
          });
    }
  }
}

void rms_norm_grad(const RmsNormGradRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) { rms_norm_grad_rows<decltype(e)>(args, begin, end); });
}

// Rows whose terms are added up before they meet the total.
constexpr std::int64_t kSummedRows = 8;

// sums[c] (+)= sum over rows of term(row, c, n), n columns from c on; a vector of them at a time.
template <typename Term>
CARAVAN_INLINE void sum_columns(const ColumnSums& args, std::int64_t begin, std::int64_t end, const Term& term) {
  for (std::int64_t first = 0; first < args.rows; first += kSummedRows) {
    const bool fresh = first == 0 && !args.add;
    const std::int64_t rows = args.rows - first < kSummedRows ? args.rows - first : kSummedRows;
    for (std::int64_t c = begin; c < end; c += kLanes) {
      const std::int64_t n = end - c < kLanes ? end - c : kLanes;
      Vec total = zero();
      const auto add_whole = [&](std::int64_t width) {
        Vec some[4];
        for (int i = 0; i < 4; ++i) {
          some[i] = term(first + 2 * i, c, width) + term(first + 2 * i + 1, c, width);
        }
        total = (some[0] + some[1]) + (some[2] + some[3]);
      };
      if (rows < kSummedRows) {
        for (std::int64_t row = first; row < first + rows; ++row) {
          total = total + term(row, c, n);
        }
      } else if (n == kLanes) {
        add_whole(kLanes);  // a constant, so that nothing is masked
      } else {
        add_whole(n);
      }
      F32::store(args.sums + c, fresh ? total : F32::load(args.sums + c, n) + total, n);
    }
  }
}

template <typename E>
CARAVAN_INLINE Vec load_some(const typename E::Stored* p, std::int64_t n) {
  return n == kLanes ? E::load(p) : E::load(p, n);
}

void column_sums(const ColumnSums& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) {
    using E = decltype(e);
    sum_columns(args, begin, end, [&](std::int64_t row, std::int64_t c, std::int64_t n) {
      return load_some<E>(row_of<E>(args.dy, row) + c, n);
    });
  });
}

template <typename E, bool kRounded>
void rms_norm_column_sums_of(const RmsNormColumnSums& args, std::int64_t begin, std::int64_t end) {
  sum_columns(args.sums, begin, end, [&](std::int64_t row, std::int64_t c, std::int64_t n) {
    const Vec scaled = load_some<E>(row_of<E>(args.x, row) + c, n) * set(args.rstd[row]);
    return load_some<E>(row_of<E>(args.sums.dy, row) + c, n) * (kRounded ? E::round(scaled) : scaled);
  });
}

void rms_norm_column_sums(const RmsNormColumnSums& args, std::int64_t begin, std::int64_t end) {
  with_element(args.sums.element, [&](auto e) {
    if (args.round_before_weight) {
      rms_norm_column_sums_of<decltype(e), true>(args, begin, end);
    } else {
      rms_norm_column_sums_of<decltype(e), false>(args, begin, end);
    }
  });
}

struct GatedGrad {
  Vec gate, up;
};

// With s = sigmoid(gate) = 1 / (1 + e) and e = exp(-gate), 1 - s is e s, which does not cancel.  Where e is infinite s
// is 0, and so is what the bounded e makes of it.
CARAVAN_INLINE GatedGrad gated_grad(Vec dy, Vec gate, Vec up) {
  const Vec one = set(1.0F);
  const Vec e = exp(zero() - gate);
  const Vec s = one / (one + e);
  const Vec rest = min(set(__FLT_MAX__), e) * s;
  return {dy * up * (s * fma(gate, rest, one)), dy * (gate * s)};
}

template <typename E>
void swiglu_grad_rows(const SwigluGradRows& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const auto* dy = row_of<E>(args.dy, row);
    const auto* gate = row_of<E>(args.gate_up, row);
    const auto* up = gate + args.features;
    auto* d_gate = row_of<E>(args.d_gate_up, row);
    auto* d_up = d_gate + args.features;
    each_vector(
        args.features,
        [&](std::int64_t i) {
          const GatedGrad d = gated_grad(E::load(dy + i), E::load(gate + i), E::load(up + i));
          E::store(d_gate + i, d.gate);
          E::store(d_up + i, d.up);
        },
        [&](std::int64_t i, std::int64_t n) {
          const GatedGrad d = gated_grad(E::load(dy + i, n), E::load(gate + i, n), E::load(up + i, n));
          E::store(d_gate + i, d.gate, n);
          E::store(d_up + i, d.up, n);
        });
  }
}

void swiglu_grad(const SwigluGradRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) { swiglu_grad_rows<decltype(e)>(args, begin, end); });
}

void add(const AddRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) {
    using E = decltype(e);
    for (std::int64_t row = begin; row < end; ++row) {
      const auto* a = row_of<E>(args.a, row);
      const auto* b = row_of<E>(args.b, row);
      auto* y = row_of<E>(args.y, row);
      each_vector(
          args.columns, [&](std::int64_t i) { E::store(y + i, E::load(a + i) + E::load(b + i)); },
          [&](std::int64_t i, std::int64_t n) { E::store(y + i, E::load(a + i, n) + E::load(b + i, n), n); });
    }
  });
}

void convert(const ConvertRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.to, [&](auto to) {
    with_element(args.from, [&](auto from) {
      using To = decltype(exactly(to));
      using From = decltype(from);
      for (std::int64_t row = begin; row < end; ++row) {
        const auto* x = row_of<From>(args.x, row);
        auto* y = row_of<To>(args.y, row);
        each_vector(
            args.columns, [&](std::int64_t i) { To::store(y + i, From::load(x + i)); },
            [&](std::int64_t i, std::int64_t n) { To::store(y + i, From::load(x + i, n), n); });
      }
    });
  });
}

void embedding_grad(const EmbeddingGradColumns& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) {
    using E = decltype(e);
    for (std::int64_t row = 0; row < args.rows; ++row) {
      if (args.ids[row] < 0 || args.ids[row] == args.skipped_id) {
        continue;
      }
      const auto* dy = row_of<E>(args.dy, row) + begin;
      float* to = row_of<F32>(args.table, args.ids[row]) + begin;
      each_vector(
          end - begin, [&](std::int64_t i) { store(to + i, load(to + i) + E::load(dy + i)); },
          [&](std::int64_t i, std::int64_t n) { F32::store(to + i, F32::load(to + i, n) + E::load(dy + i, n), n); });
    }
  });
}

template <typename E>
void loss_grad_rows(const LossGradBlock& args, std::int64_t begin, std::int64_t end) {
  const LossBlock& block = args.block;
  for (std::int64_t row = begin; row < end; ++row) {
    const float* logits = block.logits + row * block.stride;
    auto* gradient = row_of<E>(args.gradient, row);
    const LossRowState& state = block.states[row];
    const Vec shift = set(state.maximum);
    const Vec factor = set(args.scale / state.sum);
    each_vector(
        block.columns, [&](std::int64_t i) { E::store(gradient + i, exp(load(logits + i) - shift) * factor); },
        [&](std::int64_t i, std::int64_t n) {
          E::store(gradient + i, exp(F32::load(logits + i, n) - shift) * factor, n);
        });
    const std::int64_t target = block.targets[row] - block.first;
    if (target >= 0 && target < block.columns) {
      const Vec probability = exp(set(logits[target]) - shift) * set(1.0F / state.sum);
      E::store(gradient + target, (probability - set(1.0F)) * set(args.scale), 1);
    }
  }
}

void loss_grad_block(const LossGradBlock& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&](auto e) { loss_grad_rows<decltype(e)>(args, begin, end); });
}

}  // namespace
}  // namespace caravan::ops::cpu

// Runs a case of tests/ops/cases.h once, on the inputs that a Maker gives it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "caravan/ops/decoding.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/embedding.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/loss_head.h"
#include "caravan/ops/swiglu.h"
#include "tests/ops/cases.h"
#include "tests/ops/inputs.h"

namespace caravan::ops::testing {

struct Outcome {
  std::vector<double> y;
  std::vector<double> extra;  // rstd, lse or sin
  bool gaps_untouched = true;
};

inline Outcome run(const Maker& make, const LinearCase& c) {
  const Window x = make.input("x", c.tokens, c.in, 1, c.strided);
  const Weight w(make.input("w", c.out, c.in, 1).view);
  const Tensor bias = c.bias ? make.vector("bias", c.out, 4) : Tensor{};
  const DType y_dtype = c.f32_output && make.store != DType::kF64 ? DType::kF32 : make.store;
  const Maker of_y{make.ctx, c.f32_output ? DType::kF32 : make.values, y_dtype, make.magnitudes};
  const bool with_residual = c.residual != Residual::kNone;
  const Window residual = with_residual ? of_y.input("residual", c.tokens, c.out, 4, c.strided) : Window{};
  const Window y = c.residual == Residual::kAliasesY ? residual : make.output(y_dtype, c.tokens, c.out, c.strided);
  linear(make.ctx, y.view, x.view, w, bias, residual.view);
  return {to_doubles(y.view), {}, gaps_untouched(y)};
}

inline Outcome run(const Maker& make, const RmsNormCase& c, NormRounding rounding, bool unit_weight = false) {
  const Window x = make.input("x", c.tokens, c.features, c.scale, c.strided);
  const Tensor w = unit_weight ? from_doubles(make.ctx, make.store, {c.features},
                                              std::vector<double>(static_cast<std::size_t>(c.features), 1))
                               : make.vector("w", c.features, 2);
  const Tensor rstd = c.rstd ? make.output_vector(make.statistics(), c.tokens) : Tensor{};
  const Window y = c.in_place ? x : make.output(make.store, c.tokens, c.features, c.strided);
  rms_norm(make.ctx, y.view, rstd, x.view, w, c.eps, rounding);
  return {to_doubles(y.view), rstd.defined() ? to_doubles(rstd) : std::vector<double>{}, gaps_untouched(y)};
}

// Positions from 0 to the case's last, every third row padding.
inline Outcome run(Context& ctx, DType tables, const RopeTablesCase& c, DType rounded_to) {
  std::vector<std::int32_t> positions, kind;
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    const std::int64_t last = c.tokens > 1 ? c.tokens - 1 : 1;
    positions.push_back(t % 3 == 2 ? -1 : static_cast<std::int32_t>(c.last_position * t / last));
    kind.push_back(t % 3 == 2 ? -7 : static_cast<std::int32_t>(t % c.kinds));
  }
  std::vector<double> frequencies;
  for (std::int64_t k = 0; k < c.kinds; ++k) {
    for (std::int64_t i = 0; i < c.half; ++i) {
      frequencies.push_back(
          std::pow(10000.0 * static_cast<double>(k + 1), -static_cast<double>(i) / static_cast<double>(c.half)));
    }
  }
  const Maker make{ctx, tables, tables};
  const Window cos = make.output(tables, c.tokens, c.half);
  const Window sin = make.output(tables, c.tokens, c.half);
  rope_tables(ctx, cos.view, sin.view, from_ints(ctx, positions),
              from_doubles(ctx, DType::kF32, {c.kinds, c.half}, frequencies), from_ints(ctx, kind), c.scaling,
              rounded_to);
  return {to_doubles(cos.view), to_doubles(sin.view), true};
}

inline Outcome run(const Maker& make, const RopeCase& c, RopePairing pairing, bool inverse) {
  const std::int64_t columns = c.heads * c.head_dim;
  const Window x = make.input("x", c.tokens, columns, 1, c.strided);
  const Window y = c.in_place ? x : make.output(make.store, c.tokens, columns, c.strided);
  // Any numbers do for tables: the rotation does not ask that cos^2 + sin^2 be 1.
  const Maker of_tables{make.ctx, DType::kF32, make.statistics(), make.magnitudes};
  const Tensor cos = of_tables.input("cos", c.tokens, c.head_dim / 2, 1).view;
  const Tensor sin = of_tables.input("sin", c.tokens, c.head_dim / 2, 1).view;
  rope(make.ctx, y.view, x.view, cos, sin, pairing, inverse);
  return {to_doubles(y.view), {}, gaps_untouched(y)};
}

// What a run of attention takes as absolute values, for the bounds of its error.
enum class Absolute { kNothing, kQueryAndKey, kValue };

struct AttentionInputs {
  std::vector<bool> dead_queries, dead_keys;  // rows that no range covers
  Window query, key, value;
  double scale;

  AttentionInputs(const Maker& make, const AttentionCase& c, Absolute absolute = Absolute::kNothing)
      : dead_queries(static_cast<std::size_t>(c.queries), true), dead_keys(static_cast<std::size_t>(c.keys), true) {
    for (const AttentionRange& range : c.ranges) {
      for (std::int64_t q = range.query_begin; q < range.query_end; ++q) {
        dead_queries[static_cast<std::size_t>(q)] = false;
      }
      for (std::int64_t k = range.key_begin; k < range.key_end; ++k) {
        dead_keys[static_cast<std::size_t>(k)] = false;
      }
    }
    const std::int64_t wide = c.heads.heads * c.heads.head_dim;
    const std::int64_t narrow = c.heads.kv_heads * c.heads.head_dim;
    const Maker scores{make.ctx, make.values, make.store, absolute == Absolute::kQueryAndKey};
    const Maker values{make.ctx, make.values, make.store, absolute == Absolute::kValue};
    query = scores.input("query", c.queries, wide, c.magnitude, c.strided, dead_queries);
    key = scores.input("key", c.keys, narrow, c.magnitude, c.strided, dead_keys);
    value = values.input("value", c.keys, narrow, 1, c.strided, dead_keys);
    scale = c.scale == 0 ? 1 / std::sqrt(static_cast<double>(c.heads.head_dim)) : c.scale;
  }
};

// Makes one element of a tensor NaN.
inline void poison(Context& ctx, const Tensor& tensor, std::int64_t row, std::int64_t column) {
  const Tensor nan = from_doubles(ctx, tensor.dtype(), {1, 1}, {std::numeric_limits<double>::quiet_NaN()});
  convert(ctx, tensor.row_range(row, row + 1).column_range(column, column + 1), nan);
}

// Which of attention's inputs holds one NaN among its numbers.
enum class Poisoned { kNothing, kQuery, kKey, kValue };

// In the last column of the last query that a range covers, or of the last range's first key, which all its queries see.
inline void poison(Context& ctx, const AttentionInputs& inputs, const AttentionCase& c, Poisoned poisoned) {
  if (poisoned == Poisoned::kNothing) {
    return;
  }
  const bool of_query = poisoned == Poisoned::kQuery;
  const Tensor& tensor = of_query                     ? inputs.query.view
                         : poisoned == Poisoned::kKey ? inputs.key.view
                                                      : inputs.value.view;
  std::int64_t row = 0;
  for (const AttentionRange& range : c.ranges) {
    if (range.query_begin < range.query_end && range.key_begin < range.key_end) {
      row = of_query ? range.query_end - 1 : range.key_begin;
    }
  }
  poison(ctx, tensor, row, tensor.columns() - 1);
}

inline Outcome run(const Maker& make, const AttentionCase& c, Absolute absolute = Absolute::kNothing,
                   Poisoned poisoned = Poisoned::kNothing) {
  const AttentionInputs inputs(make, c, absolute);
  poison(make.ctx, inputs, c, poisoned);
  const Window out = make.output(make.store, c.queries, c.heads.heads * c.heads.head_dim, c.strided);
  const Tensor lse = c.lse ? make.output(make.statistics(), c.queries, c.heads.heads).view : Tensor{};
  attention(make.ctx, out.view, lse, inputs.query.view, inputs.key.view, inputs.value.view, c.heads, c.ranges,
            inputs.scale);
  return {to_doubles(out.view), c.lse ? to_doubles(lse) : std::vector<double>{}, gaps_untouched(out)};
}

// The same by cached_attention(): each query row has one range, whose keys it sees all.
inline Outcome run_cached(const Maker& make, const AttentionCase& c, Poisoned poisoned = Poisoned::kNothing) {
  const AttentionInputs inputs(make, c);
  poison(make.ctx, inputs, c, poisoned);
  std::vector<std::int32_t> begins(static_cast<std::size_t>(c.queries), 0);
  std::vector<std::int32_t> lengths(begins);
  std::int32_t longest = 1;
  for (const AttentionRange& range : c.ranges) {
    const auto at = static_cast<std::size_t>(range.query_begin);
    begins[at] = static_cast<std::int32_t>(range.key_begin);
    lengths[at] = static_cast<std::int32_t>(range.key_end - range.key_begin);
    longest = std::max(longest, lengths[at]);
  }
  const Window out = make.output(make.store, c.queries, c.heads.heads * c.heads.head_dim, c.strided);
  cached_attention(make.ctx, out.view, inputs.query.view, inputs.key.view, inputs.value.view, c.heads,
                   from_ints(make.ctx, begins), from_ints(make.ctx, lengths), longest, inputs.scale);
  return {to_doubles(out.view), {}, gaps_untouched(out)};
}

inline Outcome run(const Maker& make, const SwigluCase& c) {
  const Window gate_up = make.input("gate_up", c.tokens, 2 * c.features, c.scale, c.strided);
  const Window y = make.output(make.store, c.tokens, c.features);
  swiglu(make.ctx, y.view, gate_up.view);
  return {to_doubles(y.view), {}, true};
}

inline std::vector<std::int32_t> ids_of(const EmbeddingCase& c) {
  std::vector<std::int32_t> ids;
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    ids.push_back(t % 5 == 4 ? static_cast<std::int32_t>(-1 - t) : static_cast<std::int32_t>((t * 37) % c.vocab));
  }
  return ids;
}

inline Outcome run(const Maker& make, const EmbeddingCase& c) {
  const Tensor table = make.input("table", c.vocab, c.hidden, 1).view;
  const Window y = make.output(make.store, c.tokens, c.hidden);
  embedding(make.ctx, y.view, table, from_ints(make.ctx, ids_of(c)));
  return {to_doubles(y.view), {}, true};
}

struct LossHeadInputs {
  std::vector<std::int32_t> targets;
  std::vector<bool> ignored;
  Window hidden;
  Weight w;

  LossHeadInputs(const Maker& make, const LossHeadCase& c) {
    for (std::int64_t t = 0; t < c.tokens; ++t) {
      ignored.push_back(c.ignored_every > 0 && t % c.ignored_every == c.ignored_every - 1);
      // The first and the last id of the vocabulary are among the targets.
      const std::int64_t target = t % 2 == 0 ? (t * 31) % c.vocab : c.vocab - 1 - (t * 17) % c.vocab;
      targets.push_back(ignored.back() ? kIgnoredTarget : static_cast<std::int32_t>(target));
    }
    hidden = make.input("hidden", c.tokens, c.features, 1, c.strided, ignored);
    w = Weight(make.input("w", c.vocab, c.features, c.scale).view);
  }
};

// Of the loss head's inputs: an element of the last hidden row that counts, or of the middle row of the weight.
enum class PoisonedHead { kNothing, kHidden, kWeight };

inline void poison(Context& ctx, const LossHeadInputs& inputs, const LossHeadCase& c, PoisonedHead poisoned) {
  if (poisoned == PoisonedHead::kHidden) {
    const auto last = std::ranges::find(inputs.ignored.rbegin(), inputs.ignored.rend(), false);
    poison(ctx, inputs.hidden.view, inputs.ignored.rend() - last - 1, c.features - 1);
  } else if (poisoned == PoisonedHead::kWeight) {
    poison(ctx, inputs.w.plain(), c.vocab / 2, 0);
  }
}

inline Outcome run(const Maker& make, const LossHeadCase& c, PoisonedHead poisoned = PoisonedHead::kNothing) {
  const LossHeadInputs inputs(make, c);
  poison(make.ctx, inputs, c, poisoned);
  const Tensor nll = make.output_vector(make.statistics(), c.tokens);
  loss_head(make.ctx, nll, inputs.hidden.view, inputs.w, from_ints(make.ctx, inputs.targets));
  return {to_doubles(nll), {}, true};
}

// max_v sum_i |hidden[t, i]| |w[v, i]| of every row: what the rounding errors of its logits are proportional to.
inline std::vector<double> logit_magnitudes(Context& ref, DType values, const LossHeadCase& c) {
  const Maker make{ref, values, DType::kF64, /*magnitudes=*/true};
  const Tensor logits = ref.allocate(DType::kF64, {c.tokens, c.vocab});
  linear(ref, logits, make.input("hidden", c.tokens, c.features, 1).view,
         Weight(make.input("w", c.vocab, c.features, c.scale).view));
  const std::vector<double> all = to_doubles(logits);
  std::vector<double> largest(static_cast<std::size_t>(c.tokens), 0);
  for (std::size_t i = 0; i < all.size(); ++i) {
    double& row = largest[i / static_cast<std::size_t>(c.vocab)];
    row = std::max(row, all[i]);
  }
  return largest;
}

}  // namespace caravan::ops::testing

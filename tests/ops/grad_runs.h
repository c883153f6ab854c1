// Runs the backward of a case of tests/ops/cases.h once, on the inputs that a Maker gives it.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "caravan/ops/adamw.h"
#include "caravan/ops/elementwise.h"
#include "tests/ops/runs.h"

namespace caravan::ops::testing {

// A Maker of weight gradients: f32 beside activations of any dtype but f64.
inline Maker of_weight_gradients(const Maker& make) {
  return {make.ctx, make.values == DType::kF64 ? DType::kF64 : DType::kF32, make.statistics(), make.magnitudes};
}

// A gradient of a weight before the op: numbers to add to, or NaN that storing has to replace.
inline Tensor weight_gradient(const Maker& make, std::int64_t rows, std::int64_t columns, Accumulate accumulate) {
  const Maker of_dw = of_weight_gradients(make);
  return accumulate == Accumulate::kAdd ? of_dw.input("dw", rows, columns, 4).view
                                        : of_dw.output(of_dw.store, rows, columns).view;
}

inline Window input_gradient(const Maker& make, std::int64_t rows, std::int64_t columns, bool strided,
                             Accumulate accumulate) {
  return accumulate == Accumulate::kAdd ? make.input("dx", rows, columns, 4, strided)
                                        : make.output(make.store, rows, columns, strided);
}

inline Outcome run_input_grad(const Maker& make, const LinearCase& c, Accumulate accumulate) {
  const Window dy = make.input("dy", c.tokens, c.out, 1, c.strided);
  const Weight w(make.input("w", c.out, c.in, 1).view);
  const Window dx = input_gradient(make, c.tokens, c.in, c.strided, accumulate);
  linear_input_grad(make.ctx, dx.view, dy.view, w, accumulate);
  return {to_doubles(dx.view), {}, gaps_untouched(dx)};
}

inline Outcome run_weight_grad(const Maker& make, const LinearCase& c, Accumulate accumulate) {
  const Window dy = make.input("dy", c.tokens, c.out, 1, c.strided);
  const Window x = make.input("x", c.tokens, c.in, 1, c.strided);
  const Tensor dw = weight_gradient(make, c.out, c.in, accumulate);
  linear_weight_grad(make.ctx, dw, dy.view, x.view, accumulate);
  return {to_doubles(dw), {}, true};
}

inline Outcome run_bias_grad(const Maker& make, const LinearCase& c, Accumulate accumulate) {
  const Window dy = make.input("dy", c.tokens, c.out, 1, c.strided);
  const Tensor db = weight_gradient(make, 1, c.out, accumulate).reshape({c.out});
  bias_grad(make.ctx, db, dy.view, accumulate);
  return {to_doubles(db), {}, true};
}

// Positive numbers near one over the case's scale: the backward asks no more of rstd.
inline Tensor rstd_of(const Maker& make, const RmsNormCase& c) {
  std::vector<double> values;
  const RandomStream stream(1, "rstd");
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    values.push_back((0.5 + stream.uniform(static_cast<std::uint64_t>(t))) / c.scale);
  }
  const Maker of_rstd = of_weight_gradients(make);
  return from_doubles(make.ctx, of_rstd.store, {c.tokens}, rounded(values, of_rstd.values));
}

// In place, dx is dy.
inline Outcome run_input_grad(const Maker& make, const RmsNormCase& c, Accumulate accumulate) {
  const Window dy = make.input("dy", c.tokens, c.features, 1, c.strided);
  const Window x = make.input("x", c.tokens, c.features, c.scale, c.strided);
  const Tensor w = make.vector("w", c.features, 2);
  const bool in_place = c.in_place && accumulate == Accumulate::kStore;
  const Window dx = in_place ? dy : input_gradient(make, c.tokens, c.features, c.strided, accumulate);
  rms_norm_input_grad(make.ctx, dx.view, dy.view, x.view, rstd_of(make, c), w, accumulate);
  return {to_doubles(dx.view), {}, gaps_untouched(dx)};
}

inline Outcome run_weight_grad(const Maker& make, const RmsNormCase& c, NormRounding rounding, Accumulate accumulate) {
  const Window dy = make.input("dy", c.tokens, c.features, 1, c.strided);
  const Window x = make.input("x", c.tokens, c.features, c.scale, c.strided);
  const Tensor dw = weight_gradient(make, 1, c.features, accumulate).reshape({c.features});
  rms_norm_weight_grad(make.ctx, dw, dy.view, x.view, rstd_of(make, c), rounding, accumulate);
  return {to_doubles(dw), {}, true};
}

// In place, d_gate_up is gate_up.
inline Outcome run_grad(const Maker& make, const SwigluCase& c, bool in_place) {
  const Window gate_up = make.input("gate_up", c.tokens, 2 * c.features, c.scale, c.strided);
  const Window dy = make.input("dy", c.tokens, c.features, 1);
  const Window d_gate_up = in_place ? gate_up : make.output(make.store, c.tokens, 2 * c.features, c.strided);
  swiglu_grad(make.ctx, d_gate_up.view, dy.view, gate_up.view);
  return {to_doubles(d_gate_up.view), {}, gaps_untouched(d_gate_up)};
}

inline Outcome run_grad(const Maker& make, const EmbeddingCase& c) {
  const Window dy = make.input("dy", c.tokens, c.hidden, 1);
  const Tensor d_table = weight_gradient(make, c.vocab, c.hidden, Accumulate::kAdd);
  embedding_weight_grad(make.ctx, d_table, dy.view, from_ints(make.ctx, ids_of(c)));
  return {to_doubles(d_table), {}, true};
}

struct AttentionGradients {
  std::vector<double> query, key, value;
  bool gaps_untouched = true;
};

// What the backward reads of the forward: its exact results, rounded to the dtypes of a run in `values`.
struct AttentionResults {
  std::vector<double> out, lse;
};

inline AttentionResults attention_results(Context& ref, DType values, const AttentionCase& c) {
  AttentionCase with_lse = c;
  with_lse.lse = true;
  const Outcome exact = run(Maker{ref, values, DType::kF64}, with_lse);
  return {rounded(exact.y, values), rounded(exact.extra, values == DType::kF64 ? DType::kF64 : DType::kF32)};
}

// Strided and self-attention: the three gradients are column ranges of one product, as the layers have them.
inline AttentionGradients run_grad(const Maker& make, const AttentionCase& c, const AttentionResults& results) {
  const AttentionInputs inputs(make, c);
  const std::int64_t wide = c.heads.heads * c.heads.head_dim;
  const std::int64_t narrow = c.heads.kv_heads * c.heads.head_dim;
  const Window d_out = make.input("d_out", c.queries, wide, 1, c.strided, inputs.dead_queries);
  std::vector<double> out_values = results.out;
  for (std::size_t i = 0; i < out_values.size(); ++i) {
    if (inputs.dead_queries[i / static_cast<std::size_t>(wide)]) {
      out_values[i] = std::numeric_limits<double>::quiet_NaN();
    }
  }
  const Tensor out = from_doubles(make.ctx, make.store, {c.queries, wide}, out_values);
  const Tensor lse = from_doubles(make.ctx, make.statistics(), {c.queries, c.heads.heads}, results.lse);
  const bool one_product = c.strided && c.queries == c.keys;
  const Window product = make.output(make.store, c.queries, wide + 2 * narrow, /*strided=*/true);
  const auto gradient = [&](std::int64_t rows, std::int64_t begin, std::int64_t end) {
    return one_product ? Window{product.view.column_range(begin, end), {}}
                       : make.output(make.store, rows, end - begin, c.strided);
  };
  const Window d_query = gradient(c.queries, 0, wide);
  const Window d_key = gradient(c.keys, wide, wide + narrow);
  const Window d_value = gradient(c.keys, wide + narrow, wide + 2 * narrow);
  attention_grad(make.ctx, d_query.view, d_key.view, d_value.view, d_out.view, inputs.query.view, inputs.key.view,
                 inputs.value.view, out, lse, c.heads, c.ranges, inputs.scale);
  const bool untouched = one_product ? gaps_untouched(product)
                                     : gaps_untouched(d_query) && gaps_untouched(d_key) && gaps_untouched(d_value);
  return {to_doubles(d_query.view), to_doubles(d_key.view), to_doubles(d_value.view), untouched};
}

struct LossHeadGradients {
  std::vector<double> nll, d_hidden, dw;
};

// The scale that a batch with a few more valid targets than this one has would give.
inline double loss_scale(const LossHeadCase& c) {
  return 1 / static_cast<double>(c.tokens + 3);
}

// dw is added to.
inline LossHeadGradients run_grad(const Maker& make, const LossHeadCase& c, bool weight_trained = true) {
  const LossHeadInputs inputs(make, c);
  const Tensor nll = make.output_vector(make.statistics(), c.tokens);
  const Tensor d_hidden = make.output(make.store, c.tokens, c.features).view;
  const Tensor dw = weight_trained ? weight_gradient(make, c.vocab, c.features, Accumulate::kAdd) : Tensor{};
  loss_head_with_grad(make.ctx, nll, d_hidden, dw, inputs.hidden.view, inputs.w, from_ints(make.ctx, inputs.targets),
                      loss_scale(c));
  return {to_doubles(nll), to_doubles(d_hidden), weight_trained ? to_doubles(dw) : std::vector<double>{}};
}

inline AdamW settings_of(const OptimizerCase& c) {
  return {.weight_decay = c.weight_decay, .step = c.step, .gradient_scale = c.gradient_scale};
}

struct Optimized {
  std::vector<double> master, m, v;
};

// The optimizer's tensors before the step, as numbers.
struct OptimizerInputs {
  std::vector<double> master, m, v, gradient;

  OptimizerInputs(DType dtype, const OptimizerCase& c) {
    const auto numbers = [&](std::string_view name, double scale, bool positive) {
      const RandomStream stream(1, name);
      std::vector<double> values;
      for (std::int64_t i = 0; i < c.count; ++i) {
        const double unit = stream.uniform(static_cast<std::uint64_t>(i));
        values.push_back(scale * (positive ? unit : 2 * unit - 1));
      }
      return rounded(values, dtype);
    };
    master = numbers("master", 1, false);
    m = numbers("m", 0.01, false);
    v = numbers("v", 1e-4, true);
    gradient = numbers("gradient", 0.1, false);
  }
};

inline Optimized run(Context& ctx, DType dtype, const OptimizerCase& c) {
  const OptimizerInputs inputs(dtype, c);
  const Tensor master = from_doubles(ctx, dtype, {c.count}, inputs.master);
  const Tensor m = from_doubles(ctx, dtype, {c.count}, inputs.m);
  const Tensor v = from_doubles(ctx, dtype, {c.count}, inputs.v);
  const Tensor gradient = from_doubles(ctx, dtype, {c.count}, inputs.gradient);
  adamw(ctx, master, m, v, gradient, settings_of(c));
  return {to_doubles(master), to_doubles(m), to_doubles(v)};
}

}  // namespace caravan::ops::testing

// Every backward of the reference against finite differences of its forward, in f64, over the small cases of each
// table.
//
// Of f(x) = <dy, op(x)> with a random cotangent dy, df/dx_i = (f(x + h e_i) - f(x - h e_i)) / 2h + O(h^2) + O(eps / h).
// The two errors are equal near h = cbrt(eps) = 6e-6 of the length over which op bends (x's scale for most), where each
// is about 4e-11 of f's: 1e-7 of the gradient's scale leaves room for functions that bend and for sums.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "tests/ops/grad_runs.h"

namespace caravan::ops::testing {
namespace {

using Doubles = std::vector<double>;

constexpr double kTolerance = 1e-7;
// Multiplications that the differences of one case may cost.
constexpr double kMostWork = 2e8;

Context reference() {
  return make_context({.backend = Backend::kRef, .threads = 1, .memory_capacity = std::int64_t{64} << 20});
}

Maker numbers(Context& ctx) {
  return {ctx, DType::kF64, DType::kF64};
}

// Whether the differences of `inputs` elements through an op of so many multiplications can be afforded.
bool affordable(std::int64_t inputs, std::int64_t work) {
  return 2 * static_cast<double>(inputs) * static_cast<double>(work) <= kMostWork;
}

void write(const Tensor& tensor, const Doubles& values) {
  const Tensor source = tensor;
  for (std::int64_t r = 0; r < tensor.rows(); ++r) {
    const std::span<const double> row(values.data() + r * tensor.columns(), static_cast<std::size_t>(tensor.columns()));
    copy_from_host(source.row_range(r, r + 1), std::as_bytes(row));
  }
}

// The largest number of a tensor that is not NaN; 1 when all are 0.
double scale_of(const Tensor& x) {
  double scale = 0;
  for (const double value : to_doubles(x)) {
    scale = std::isnan(value) ? scale : std::max(scale, std::abs(value));
  }
  return scale == 0 ? 1 : scale;
}

// <dy, op> by central differences in every element of `x`, where op bends over `length`.  Elements of dy that are NaN
// meet no output.
Doubles differences(const Tensor& x, const std::function<Doubles()>& op, const Doubles& dy, double length) {
  const double step = std::cbrt(std::numeric_limits<double>::epsilon()) * length;
  const Doubles at = to_doubles(x);
  Doubles gradient(at.size());
  for (std::size_t i = 0; i < at.size(); ++i) {
    Doubles moved = at;
    moved[i] = at[i] + step;
    const double above = moved[i];
    write(x, moved);
    const Doubles high = op();
    moved[i] = at[i] - step;
    const double below = moved[i];
    write(x, moved);
    const Doubles low = op();
    for (std::size_t k = 0; k < dy.size(); ++k) {
      if (!std::isnan(dy[k])) {
        gradient[i] += dy[k] * (high[k] - low[k]);
      }
    }
    if (!std::isnan(at[i])) {  // a row that is never read: its differences are of equal numbers
      gradient[i] /= above - below;
    }
  }
  write(x, at);
  return gradient;
}

Doubles differences(const Tensor& x, const std::function<Doubles()>& op, const Doubles& dy) {
  return differences(x, op, dy, scale_of(x));
}

// `claimed` is `expected` (+ `before`, what stood there when the op added).
void expect_gradient(const char* name, const Doubles& claimed, const Doubles& expected, const Doubles& before = {}) {
  SCOPED_TRACE(name);
  ASSERT_EQ(claimed.size(), expected.size());
  double scale = 1e-30;
  for (const double value : expected) {
    scale = std::max(scale, std::abs(value));
  }
  double worst = 0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < claimed.size(); ++i) {
    const double error = std::abs(claimed[i] - (before.empty() ? 0 : before[i]) - expected[i]) / scale;
    if (!(error <= worst)) {
      worst = error;
      at = i;
    }
  }
  EXPECT_LE(worst, kTolerance) << "element " << at << " is " << claimed[at] << ", by differences " << expected[at]
                               << ", largest of all " << scale;
}

const Accumulate kBoth[] = {Accumulate::kStore, Accumulate::kAdd};

Doubles before(const Maker& make, const char* name, std::int64_t rows, std::int64_t columns, Accumulate accumulate) {
  return accumulate == Accumulate::kAdd ? to_doubles(make.input(name, rows, columns, 4).view) : Doubles{};
}

TEST(GradientOfLinear, IsThatOfFiniteDifferences) {
  Context ctx = reference();
  const Maker make = numbers(ctx);
  int checked = 0;
  for (const LinearCase& c : kLinearCases) {
    if (!affordable(c.tokens * c.in + c.out * c.in + c.out, c.tokens * c.in * c.out)) {
      continue;
    }
    SCOPED_TRACE(std::to_string(c.tokens) + " " + std::to_string(c.in) + " " + std::to_string(c.out));
    const Window x = make.input("x", c.tokens, c.in, 1, c.strided);
    const Weight w(make.input("w", c.out, c.in, 1).view);
    const Tensor bias = make.vector("bias", c.out, 4);
    const Doubles dy = to_doubles(make.input("dy", c.tokens, c.out, 1).view);
    const Window y = make.output(DType::kF64, c.tokens, c.out);
    const auto forward = [&] {
      linear(ctx, y.view, x.view, w, bias);
      return to_doubles(y.view);
    };
    const Doubles by_x = differences(x.view, forward, dy);
    const Doubles by_w = differences(w.plain(), forward, dy);
    const Doubles by_bias = differences(bias, forward, dy);
    for (const Accumulate accumulate : kBoth) {
      expect_gradient("x", run_input_grad(make, c, accumulate).y, by_x, before(make, "dx", c.tokens, c.in, accumulate));
      expect_gradient("w", run_weight_grad(make, c, accumulate).y, by_w, before(make, "dw", c.out, c.in, accumulate));
      expect_gradient("bias", run_bias_grad(make, c, accumulate).y, by_bias, before(make, "dw", 1, c.out, accumulate));
    }
    ++checked;
  }
  EXPECT_GE(checked, 4);
}

TEST(GradientOfRmsNorm, IsThatOfFiniteDifferences) {
  Context ctx = reference();
  const Maker make = numbers(ctx);
  int checked = 0;
  for (const RmsNormCase& c : kRmsNormCases) {
    if (!affordable((c.tokens + 1) * c.features, 4 * c.tokens * c.features)) {
      continue;
    }
    SCOPED_TRACE(std::to_string(c.tokens) + " " + std::to_string(c.features));
    for (const NormRounding rounding : {NormRounding::kFused, NormRounding::kHuggingFace}) {
      const Window x = make.input("x", c.tokens, c.features, c.scale, c.strided);
      const Tensor w = make.vector("w", c.features, 2);
      const Window dy = make.input("dy", c.tokens, c.features, 1, c.strided);
      const Tensor rstd = make.output_vector(DType::kF64, c.tokens);
      const Window y = make.output(DType::kF64, c.tokens, c.features);
      const auto forward = [&] {
        rms_norm(ctx, y.view, rstd, x.view, w, c.eps, rounding);
        return to_doubles(y.view);
      };
      forward();
      // x / rms(x) bends over rms(x); of the rows, the shortest.
      const Doubles by_x = differences(x.view, forward, to_doubles(dy.view), 1 / scale_of(rstd));
      const Doubles by_w = differences(w, forward, to_doubles(dy.view));
      forward();
      for (const Accumulate accumulate : kBoth) {
        const Window dx = input_gradient(make, c.tokens, c.features, c.strided, accumulate);
        rms_norm_input_grad(ctx, dx.view, dy.view, x.view, rstd, w, accumulate);
        expect_gradient("x", to_doubles(dx.view), by_x, before(make, "dx", c.tokens, c.features, accumulate));
        const Tensor dw = weight_gradient(make, 1, c.features, accumulate).reshape({c.features});
        rms_norm_weight_grad(ctx, dw, dy.view, x.view, rstd, rounding, accumulate);
        expect_gradient("w", to_doubles(dw), by_w, before(make, "dw", 1, c.features, accumulate));
      }
    }
    ++checked;
  }
  EXPECT_GE(checked, 6);
}

TEST(GradientOfRope, IsTheInverseRotation) {
  Context ctx = reference();
  const Maker make = numbers(ctx);
  int checked = 0;
  for (const RopeCase& c : kRopeCases) {
    const std::int64_t columns = c.heads * c.head_dim;
    if (!affordable(c.tokens * columns, 4 * c.tokens * columns)) {
      continue;
    }
    SCOPED_TRACE(std::to_string(c.tokens) + " " + std::to_string(columns));
    for (const RopePairing pairing : {RopePairing::kRotateHalf, RopePairing::kInterleaved}) {
      const Window x = make.input("x", c.tokens, columns, 1, c.strided);
      const Tensor dy = make.input("dy", c.tokens, columns, 1).view;
      const Tensor cos = make.input("cos", c.tokens, c.head_dim / 2, 1).view;
      const Tensor sin = make.input("sin", c.tokens, c.head_dim / 2, 1).view;
      const Tensor y = make.output(DType::kF64, c.tokens, columns).view;
      const auto forward = [&] {
        rope(ctx, y, x.view, cos, sin, pairing);
        return to_doubles(y);
      };
      const Doubles expected = differences(x.view, forward, to_doubles(dy));
      rope(ctx, dy, dy, cos, sin, pairing, /*inverse=*/true);
      expect_gradient("x", to_doubles(dy), expected);
    }
    ++checked;
  }
  EXPECT_GE(checked, 5);
}

TEST(GradientOfAttention, IsThatOfFiniteDifferences) {
  Context ctx = reference();
  const Maker make = numbers(ctx);
  std::set<std::string> checked;
  for (const AttentionCase& c : kAttentionCases) {
    const std::int64_t wide = c.heads.heads * c.heads.head_dim;
    const std::int64_t narrow = c.heads.kv_heads * c.heads.head_dim;
    if (!affordable(c.queries * wide + 2 * c.keys * narrow, 2 * visible_pairs(c.ranges) * wide)) {
      continue;
    }
    SCOPED_TRACE(c.name);
    const AttentionInputs inputs(make, c);
    const Window out = make.output(DType::kF64, c.queries, wide, c.strided);
    const auto forward = [&] {
      attention(ctx, out.view, {}, inputs.query.view, inputs.key.view, inputs.value.view, c.heads, c.ranges,
                inputs.scale);
      return to_doubles(out.view);
    };
    const Doubles d_out = to_doubles(make.input("d_out", c.queries, wide, 1, false, inputs.dead_queries).view);
    const AttentionGradients got = run_grad(make, c, attention_results(ctx, DType::kF64, c));
    expect_gradient("query", got.query, differences(inputs.query.view, forward, d_out));
    expect_gradient("key", got.key, differences(inputs.key.view, forward, d_out));
    expect_gradient("value", got.value, differences(inputs.value.view, forward, d_out));
    EXPECT_TRUE(got.gaps_untouched);
    checked.insert(c.name);
  }
  for (const char* name : {"small_mha", "small_mqa", "small_gqa_documents_and_padding", "small_chunks",
                           "small_cached_prefix", "small_ranges_of_the_same_queries", "head_dim_5", "only_padding"}) {
    EXPECT_TRUE(checked.contains(name)) << name;
  }
}

TEST(GradientOfSwiglu, IsThatOfFiniteDifferences) {
  Context ctx = reference();
  const Maker make = numbers(ctx);
  int checked = 0;
  for (const SwigluCase& c : kSwigluCases) {
    // The difference of a function as flat as silu at -120 is nothing but its rounding.
    if (c.scale > 10 || !affordable(2 * c.tokens * c.features, 10 * c.tokens * c.features)) {
      continue;
    }
    SCOPED_TRACE(std::to_string(c.tokens) + " " + std::to_string(c.features));
    const Window gate_up = make.input("gate_up", c.tokens, 2 * c.features, c.scale, c.strided);
    const Doubles dy = to_doubles(make.input("dy", c.tokens, c.features, 1).view);
    const Tensor y = make.output(DType::kF64, c.tokens, c.features).view;
    const auto forward = [&] {
      swiglu(ctx, y, gate_up.view);
      return to_doubles(y);
    };
    const Doubles expected = differences(gate_up.view, forward, dy);
    for (const bool in_place : {false, true}) {
      expect_gradient("gate_up", run_grad(make, c, in_place).y, expected);
    }
    ++checked;
  }
  EXPECT_GE(checked, 3);
}

TEST(GradientOfEmbedding, IsThatOfFiniteDifferences) {
  Context ctx = reference();
  const Maker make = numbers(ctx);
  int checked = 0;
  for (const EmbeddingCase& c : kEmbeddingCases) {
    if (!affordable(c.vocab * c.hidden, c.tokens * c.hidden)) {
      continue;
    }
    SCOPED_TRACE(std::to_string(c.tokens) + " " + std::to_string(c.vocab));
    const Tensor table = make.input("table", c.vocab, c.hidden, 1).view;
    const Tensor ids = from_ints(ctx, ids_of(c));
    const Tensor y = make.output(DType::kF64, c.tokens, c.hidden).view;
    const auto forward = [&] {
      embedding(ctx, y, table, ids);
      return to_doubles(y);
    };
    const Doubles dy = to_doubles(make.input("dy", c.tokens, c.hidden, 1).view);
    expect_gradient("table", run_grad(make, c).y, differences(table, forward, dy),
                    before(make, "dw", c.vocab, c.hidden, Accumulate::kAdd));
    ++checked;
  }
  EXPECT_GE(checked, 3);
}

TEST(GradientOfLossHead, IsThatOfFiniteDifferences) {
  Context ctx = reference();
  const Maker make = numbers(ctx);
  int checked = 0;
  for (const LossHeadCase& c : kLossHeadCases) {
    if (!affordable((c.tokens + c.vocab) * c.features, c.tokens * c.vocab * (c.features + 10))) {
      continue;
    }
    SCOPED_TRACE(std::to_string(c.tokens) + " " + std::to_string(c.features) + " " + std::to_string(c.vocab));
    const LossHeadInputs inputs(make, c);
    const Tensor nll = make.output_vector(DType::kF64, c.tokens);
    const Tensor targets = from_ints(ctx, inputs.targets);
    const auto forward = [&] {
      loss_head(ctx, nll, inputs.hidden.view, inputs.w, targets);
      return to_doubles(nll);
    };
    const Doubles scale(static_cast<std::size_t>(c.tokens), loss_scale(c));
    const LossHeadGradients got = run_grad(make, c);
    EXPECT_EQ(got.nll, forward());
    expect_gradient("hidden", got.d_hidden, differences(inputs.hidden.view, forward, scale));
    expect_gradient("w", got.dw, differences(inputs.w.plain(), forward, scale),
                    before(make, "dw", c.vocab, c.features, Accumulate::kAdd));
    EXPECT_EQ(run_grad(make, c, /*weight_trained=*/false).d_hidden, got.d_hidden);
    ++checked;
  }
  EXPECT_GE(checked, 4);
}

}  // namespace
}  // namespace caravan::ops::testing

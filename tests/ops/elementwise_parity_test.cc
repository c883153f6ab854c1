// Sums, conversions, AdamW and the gradient norm on the cpu backend against the reference, and the sums that must have
// the same bits for every thread count.  How far the two backends may be apart: parity.h.
#include <span>

#include "caravan/ops/random.h"
#include "caravan/ops/reading.h"
#include "tests/ops/grad_runs.h"
#include "tests/ops/parity.h"

namespace caravan::ops::testing {
namespace {

using Doubles = std::vector<double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class ElementwiseParity : public Parity {};

enum class Aliasing { kNone, kYIsA, kYIsB, kAllOne };

Outcome run_add(const Maker& make, const ElementwiseCase& c, Aliasing aliasing) {
  const Window a = make.input("a", c.rows, c.columns, 1, c.strided);
  const Window b = aliasing == Aliasing::kAllOne ? a : make.input("b", c.rows, c.columns, 1, c.strided);
  const Window y = aliasing == Aliasing::kNone   ? make.output(make.store, c.rows, c.columns, c.strided)
                   : aliasing == Aliasing::kYIsB ? b
                                                 : a;
  add(make.ctx, y.view, a.view, b.view);
  return {to_doubles(y.view), {}, gaps_untouched(y)};
}

TEST_P(ElementwiseParity, AddAgreesWithTheReferenceWhateverAliases) {
  for (const Aliasing aliasing : {Aliasing::kNone, Aliasing::kYIsA, Aliasing::kYIsB, Aliasing::kAllOne}) {
    for (const ElementwiseCase& c : kElementwiseCases) {
      SCOPED_TRACE(std::to_string(c.rows) + " " + std::to_string(c.columns) + (c.strided ? " strided" : ""));
      const Outcome cpu = run_add(on_cpu(), c, aliasing);
      expect_served("add", c.rows > 0);
      const Outcome exact = run_add(exactly(), c, aliasing);
      expect_rounded(run_add(on_ref(), c, aliasing).y, GetParam(), exact.y);
      expect_within(cpu.y, GetParam(), exact.y, bound(1, exact.y));
      EXPECT_TRUE(cpu.gaps_untouched);
    }
  }
}

TEST_P(ElementwiseParity, AddTakesTensorsOfOneAxis) {
  const Maker make = on_cpu();
  const Tensor x = from_doubles(make.ctx, GetParam(), {3}, {1, -2, 0.5});
  add(make.ctx, x, x, x);
  EXPECT_EQ(to_doubles(x), (Doubles{2, -4, 1}));
}

TEST_P(ElementwiseParity, ConvertRoundsOnceToNearestEvenLikeTheReference) {
  for (const DType to : kFloats) {
    for (const ElementwiseCase& c : kElementwiseCases) {
      SCOPED_TRACE(std::string("to ") + to_string(to) + " " + std::to_string(c.rows) + " " + std::to_string(c.columns));
      const Window x = on_cpu().input("x", c.rows, c.columns, 3, c.strided);
      const Window y = on_cpu().output(to, c.rows, c.columns, c.strided);
      convert(cpu_, y.view, x.view);
      if (c.rows > 0 && !choices_.empty()) {
        const DType widest = to == DType::kF64 ? to : GetParam();
        if (const char* expected = expected_implementation("convert", widest, cpu_.isa)) {
          EXPECT_EQ(choices_.back().implementation, expected);
        }
      }
      EXPECT_EQ(choices_.size(), c.rows > 0 ? 1U : 0U);
      choices_.clear();
      EXPECT_EQ(to_doubles(y.view), rounded(to_doubles(x.view), to));
      EXPECT_TRUE(gaps_untouched(y));
    }
  }
}

TEST_P(ElementwiseParity, ConvertKeepsTiesSubnormalsInfinitiesAndNaN) {
  // Ties of bf16 and f16, the greatest f16 and what rounds to infinity, subnormals of each small type, and zeros.
  const Doubles values = rounded({1 + 0x1p-8,  1 + 3 * 0x1p-8, 1 + 0x1p-11, 1 + 3 * 0x1p-11, 65504,    65519.99, 65520,
                                  -65520,      0x1p-24,        0x1p-25,     3 * 0x1p-25,     0x1p-130, 0x1p-140, -0.0,
                                  0x1.ffp+127, 3e38,           -kInfinity,  kInfinity,       1e-300,   1e300,    7},
                                 GetParam());
  const auto count = static_cast<std::int64_t>(values.size());
  for (const DType to : kFloats) {
    SCOPED_TRACE(std::string("to ") + to_string(to));
    for (Context* ctx : {&cpu_, &ref_}) {
      const Tensor y = ctx->allocate(to, {count});
      convert(*ctx, y, from_doubles(*ctx, GetParam(), {count}, values));
      const Doubles got = to_doubles(y);
      const Doubles expected = rounded(values, to);
      EXPECT_EQ(got, expected) << to_string(ctx->backend);
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(std::signbit(got[i]), std::signbit(values[i])) << to_string(ctx->backend) << " " << values[i];
      }
      const Tensor nan = ctx->allocate(to, {1});
      convert(*ctx, nan, from_doubles(*ctx, GetParam(), {1}, {std::nan("")}));
      EXPECT_TRUE(std::isnan(to_doubles(nan)[0]));
    }
  }
}

TEST_P(ElementwiseParity, ZeroClearsTheWindowAndNothingElse) {
  for (const ElementwiseCase& c : kElementwiseCases) {
    SCOPED_TRACE(std::to_string(c.rows) + " " + std::to_string(c.columns) + (c.strided ? " strided" : ""));
    for (const Maker& make : {on_cpu(), on_ref()}) {
      const Window y = make.output(GetParam(), c.rows, c.columns, c.strided);
      zero(make.ctx, y.view);
      EXPECT_EQ(to_doubles(y.view), Doubles(static_cast<std::size_t>(c.rows * c.columns), 0));
      EXPECT_TRUE(gaps_untouched(y));
    }
    expect_served("zero", c.rows > 0);
  }
}

TEST_P(ElementwiseParity, AdamWAgreesWithTorchsFormula) {
  if (size_of(GetParam()) < 4) {
    return;  // masters are f32 or f64
  }
  for (const OptimizerCase& c : kOptimizerCases) {
    SCOPED_TRACE(std::to_string(c.count) + " elements, step " + std::to_string(c.step));
    const Optimized cpu = run(cpu_, GetParam(), c);
    expect_served("adamw", c.count > 0);
    const OptimizerInputs in(GetParam(), c);
    const AdamW s = settings_of(c);
    const double correction1 = 1 - std::pow(s.beta1, static_cast<double>(s.step));
    const double correction2 = 1 - std::pow(s.beta2, static_cast<double>(s.step));
    Optimized exact;
    Bound master_error, m_error, v_error;
    for (std::size_t i = 0; i < in.master.size(); ++i) {
      const double g = s.gradient_scale * in.gradient[i];
      const double m = in.m[i] + (1 - s.beta1) * (g - in.m[i]);
      const double v = s.beta2 * in.v[i] + (1 - s.beta2) * g * g;
      const double divisor = std::sqrt(v) / std::sqrt(correction2) + s.eps;
      exact.m.push_back(m);
      exact.v.push_back(v);
      exact.master.push_back(in.master[i] * (1 - s.lr * s.weight_decay) - s.lr / correction1 * m / divisor);
      // Factors rounded to f32 count as a rounding: m, v and the divisor's root have at most 6 each.  Subnormal squares
      // may become zero, which eps hides.
      m_error.push_back(6 * kU * (std::abs(in.m[i]) + (1 - s.beta1) * (std::abs(g) + std::abs(in.m[i]))));
      v_error.push_back(6 * kU * v + 0x1p-126);
      const double step = s.lr / correction1 / divisor;
      master_error.push_back(gamma(4) * std::abs(in.master[i]) + step * (m_error[i] + gamma(10) * std::abs(m)));
    }
    if (is_f64()) {
      // The same arithmetic in f64, whose roundings are 2^-29 of f32's.
      for (Bound* error : {&master_error, &m_error, &v_error}) {
        std::transform(error->begin(), error->end(), error->begin(), [](double e) { return e * 0x1p-29; });
      }
    }
    expect_within(cpu.master, GetParam(), exact.master, master_error);
    expect_within(cpu.m, GetParam(), exact.m, m_error);
    expect_within(cpu.v, GetParam(), exact.v, v_error);
    const Optimized ref = run(ref_, GetParam(), c);
    const double rounding = is_f64() ? 0x1p-48 : 0;
    expect_within(ref.master, GetParam(), exact.master, Bound(exact.master.size(), rounding));
    expect_within(ref.m, GetParam(), exact.m, Bound(exact.m.size(), rounding));
    expect_within(ref.v, GetParam(), exact.v, Bound(exact.v.size(), rounding));
  }
}

// torch 2.15:
//   p = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64))
//   opt = torch.optim.AdamW([p], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
//   for scale in (1.0, 0.5, 0.25):
//       p.grad = scale * torch.tensor([0.1, -0.25, 1e-5, 4.0], dtype=torch.float64)
//       opt.step(); print(p.tolist())
//   print(opt.state[p]["exp_avg"].tolist(), opt.state[p]["exp_avg_sq"].tolist())
TEST_P(ElementwiseParity, AdamWTakesTheStepsThatTorchTakes) {
  if (size_of(GetParam()) < 4) {
    return;
  }
  const std::vector<Doubles> expected = {
      {0.9890000009999999, -1.9880000004, 0.48950999000999, 2.987000000025},
      {0.978618071513434, -1.9766190701956132, 0.47963950777717657, 2.974620069371975},
      {0.9690576636277981, -1.9660606605182473, 0.4705912742743002, 2.963063658199778}};
  const Doubles expected_m = {0.015099999999999999, -0.03774999999999999, 1.51e-06, 0.6039999999999999};
  const Doubles expected_v = {0.0006012500000000004, 0.0037578125000000033, 6.012500000000006e-12, 0.9620000000000009};
  // Of masters up to 3, and per step a handful of roundings in the step (0.012 at most) and two of the master.
  const double unit = is_f64() ? 0x1p-53 : kU;
  for (Context* ctx : {&cpu_, &ref_}) {
    const Tensor master = from_doubles(*ctx, GetParam(), {4}, {1, -2, 0.5, 3});
    const Tensor m = from_doubles(*ctx, GetParam(), {4}, Doubles(4, 0));
    const Tensor v = from_doubles(*ctx, GetParam(), {4}, Doubles(4, 0));
    const Tensor gradient = from_doubles(*ctx, GetParam(), {4}, {0.1, -0.25, 1e-5, 4});
    for (std::size_t step = 0; step < expected.size(); ++step) {
      const double gradient_scale = std::pow(0.5, static_cast<double>(step));
      adamw(*ctx, master, m, v, gradient,
            {.lr = 0.01,
             .beta1 = 0.9,
             .beta2 = 0.95,
             .eps = 1e-8,
             .weight_decay = 0.1,
             .step = static_cast<std::int64_t>(step) + 1,
             .gradient_scale = gradient_scale});
      const Doubles got = to_doubles(master);
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double roundings = static_cast<double>(step + 1) * (3 * std::abs(expected[0][i]) + 20 * 0.012);
        EXPECT_NEAR(got[i], expected[step][i], roundings * unit) << to_string(ctx->backend) << " step " << step + 1;
      }
    }
    for (std::size_t i = 0; i < expected_m.size(); ++i) {
      EXPECT_NEAR(to_doubles(m)[i], expected_m[i], 20 * unit * std::abs(expected_m[i]));
      EXPECT_NEAR(to_doubles(v)[i], expected_v[i], 20 * unit * std::abs(expected_v[i]));
    }
  }
}

Tensor sum_of_squares(Context& ctx, const Tensor& x, double before) {
  const Tensor sum = from_doubles(ctx, DType::kF64, {1}, {before});
  add_sum_of_squares(ctx, sum, x);
  return sum;
}

TEST_P(ElementwiseParity, SumOfSquaresIsTakenInF64AndAddedTo) {
  for (const OptimizerCase& c : kOptimizerCases) {
    SCOPED_TRACE(std::to_string(c.count) + " elements");
    const Tensor x = on_cpu().vector("x", c.count, 2);
    const double cpu = to_doubles(sum_of_squares(cpu_, x, 5))[0];
    expect_served("add_sum_of_squares", c.count > 0);
    long double exact = 5;
    for (const double value : to_doubles(x)) {
      exact += static_cast<long double>(value) * value;
    }
    const double error = (static_cast<double>(c.count) + 2) * 0x1p-53 * static_cast<double>(exact);
    EXPECT_NEAR(cpu, static_cast<double>(exact), error);
    EXPECT_NEAR(to_doubles(sum_of_squares(ref_, on_ref().vector("x", c.count, 2), 5))[0], static_cast<double>(exact),
                error);
  }
}

TEST_P(ElementwiseParity, SumOfSquaresOfF32NumbersLeavesTheRangeOfF32) {
  const double large = GetParam() == DType::kF16 ? 60000 : 1e30;
  for (Context* ctx : {&cpu_, &ref_}) {
    const Tensor x = from_doubles(*ctx, GetParam(), {2}, {large, large});
    const double value = to_doubles(x)[0];
    EXPECT_EQ(to_doubles(sum_of_squares(*ctx, x, 0))[0], 2 * value * value);
  }
}

// Every result that a run of these ops gives, bit by bit.
std::vector<Doubles> sums_over_rows(Context& ctx, Context& ref, DType dtype) {
  const Maker make{ctx, dtype, dtype};
  std::vector<Doubles> results;
  const LinearCase wide{.tokens = 517, .in = 8, .out = 1003, .strided = true};
  const LinearCase narrow{.tokens = 4001, .in = 8, .out = 67};
  for (const Accumulate accumulate : {Accumulate::kStore, Accumulate::kAdd}) {
    results.push_back(run_bias_grad(make, wide, accumulate).y);
    results.push_back(run_bias_grad(make, narrow, accumulate).y);
    for (const NormRounding rounding : {NormRounding::kFused, NormRounding::kHuggingFace}) {
      results.push_back(run_weight_grad(make, RmsNormCase{.tokens = 517, .features = 499}, rounding, accumulate).y);
    }
  }
  results.push_back(run_grad(make, EmbeddingCase{.tokens = 1000, .vocab = 7, .hidden = 499}).y);
  results.push_back(run_grad(make, EmbeddingCase{.tokens = 131, .vocab = 131, .hidden = 64}).y);
  for (const std::int64_t count : {1, 8191, 300007}) {
    results.push_back(to_doubles(sum_of_squares(ctx, make.vector("x", count, 1), 0)));
  }
  for (const AttentionCase& c : kAttentionCases) {
    const AttentionGradients got = run_grad(make, c, attention_results(ref, dtype, c));
    results.insert(results.end(), {got.query, got.key, got.value});
  }
  return results;
}

TEST_P(ElementwiseParity, SumsOverRowsHaveTheSameBitsForEveryThreadCount) {
  for (Context* ctx : {&cpu_, &ref_}) {
    Context one = *ctx;
    one.on_choice = nullptr;
    one.threads = 1;
    const std::vector<Doubles> expected = sums_over_rows(one, ref_, GetParam());
    for (const int threads : {2, 3, 3}) {
      Context several = one;
      several.threads = threads;
      EXPECT_EQ(sums_over_rows(several, ref_, GetParam()), expected)
          << threads << " threads on " << to_string(ctx->backend);
    }
  }
}

TEST_P(ElementwiseParity, RandomNormalsHaveTheBitsOfTheirStream) {
  const RandomStream stream(7, "a name");
  for (const std::int64_t count : {0, 1, 257, 40001}) {
    Doubles expected;
    for (std::int64_t i = 0; i < count; ++i) {
      expected.push_back(static_cast<float>(0.02 * stream.normal(static_cast<std::uint64_t>(5 + i))));
    }
    expected = rounded(expected, GetParam());
    for (Context* ctx : {&cpu_, &ref_}) {
      const Tensor y = ctx->allocate(GetParam(), {count});
      random_normal(*ctx, y, stream, 5, 0.02);
      EXPECT_EQ(to_doubles(y), expected) << to_string(ctx->backend) << " " << count;
    }
    choices_.clear();
  }
}

// Around the kernels' blocks, and enough words for several threads.
TEST_P(ElementwiseParity, SumWordsAddsEveryWordOnce) {
  for (const std::int64_t count : {0, 1, 31, 32, 33, 64, 127, 1000, 131072, 400001}) {
    SCOPED_TRACE(std::to_string(count) + " words");
    const std::int64_t elements = count * size_of(DType::kI64) / size_of(GetParam());
    std::vector<std::uint64_t> words(static_cast<std::size_t>(count));
    std::uint64_t expected = 0;
    for (std::size_t i = 0; i < words.size(); ++i) {
      words[i] = (i + 1) * 0x9e3779b97f4a7c15U;
      expected += words[i];
    }
    for (Context* ctx : {&cpu_, &ref_}) {
      const Tensor x = ctx->allocate(GetParam(), {elements});
      copy_from_host(x, std::as_bytes(std::span(words)));
      const Tensor sum = ctx->allocate(DType::kI64, {1});
      std::uint64_t got = 1;
      copy_from_host(sum, std::as_bytes(std::span(&got, 1)));
      sum_words(*ctx, sum, x);
      copy_to_host(std::as_writable_bytes(std::span(&got, 1)), sum);
      EXPECT_EQ(got, expected) << to_string(ctx->backend);
    }
    expect_served_by(count > 0 ? "sum_words" : "zero", true,
                     count > 0 || kOnCuda ? expected_implementation("sum_words", DType::kF32, cpu_.isa) : "rows");
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ElementwiseParity, ::testing::ValuesIn(kFloats),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace caravan::ops::testing

// Every case of every op on the cpu backend against the reference, in every dtype, at the level of instructions that
// CARAVAN_MAX_ISA names (ctest runs this program once a level), asserting which implementation served.
//
// What a kernel may return is derived, not tuned.  `exact` is the reference's result in f64 on the very inputs of the
// run.  A kernel computes in f32, so it may err by a bound E that follows from the unit roundoff u = 2^-24, the length of
// its sums and the sum of the absolute terms (Higham 2002, 3.1: n roundings err by gamma(n) = n u / (1 - n u)); then it
// rounds once to the result's dtype.  Rounding is monotonous, so the result lies in [round(exact - E), round(exact + E)]
// and a second rounding on the way shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "tests/ops/runs.h"
#include "tests/support/isa.h"

namespace caravan::ops::testing {
namespace {

constexpr double kU = 0x1p-24;

double gamma(double roundings) {
  return roundings * kU / (1 - roundings * kU);
}

using Bound = std::vector<double>;

// `got` of `dtype` lies between the roundings of low and high.
void expect_between(const std::vector<double>& got, DType dtype, const std::vector<double>& low,
                    const std::vector<double>& high) {
  ASSERT_EQ(got.size(), low.size());
  const std::vector<double> from = rounded(low, dtype);
  const std::vector<double> to = rounded(high, dtype);
  std::size_t outside = 0;
  std::size_t first = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!(from[i] <= got[i] && got[i] <= to[i])) {
      first = outside == 0 ? i : first;
      ++outside;
    }
  }
  if (outside > 0) {
    ADD_FAILURE() << outside << " of " << got.size() << " elements out of bounds; element " << first << " is "
                  << got[first] << ", may be from " << from[first] << " to " << to[first];
  }
}

void expect_within(const std::vector<double>& got, DType dtype, const std::vector<double>& exact, const Bound& error) {
  ASSERT_EQ(exact.size(), error.size());
  std::vector<double> low(exact), high(exact);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    if (std::isfinite(exact[i])) {
      low[i] -= error[i];
      high[i] += error[i];
    }
  }
  expect_between(got, dtype, low, high);
}

// The reference rounds its f64 result once.
void expect_rounded(const std::vector<double>& got, DType dtype, const std::vector<double>& exact) {
  expect_between(got, dtype, exact, exact);
}

// Which implementation must serve an op: the table that the documentation's support matrix is made from.
const char* expected_implementation(const std::string& op, DType dtype, Isa isa) {
  if (dtype == DType::kF64) {
    return "ref";
  }
  if (op == "linear" || op == "loss_head") {
    // oneDNN multiplies bf16 well where AVX512_BF16 does; f16 it does not multiply at all.
    const bool native = dtype == DType::kF32 || (dtype == DType::kBF16 && isa >= Isa::kAvx512Bf16);
    return native ? "onednn" : "onednn-upcast";
  }
  if (op == "embedding") {
    return "rows";
  }
  return isa >= Isa::kAvx512 ? "simd:avx512" : "simd:avx2";
}

class Parity : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    CARAVAN_SKIP_WITHOUT_ISA();
    cpu_ = make_context({.memory_capacity = std::int64_t{1} << 30});
    ref_ = cpu_;
    ref_.backend = Backend::kRef;
    ref_.on_choice = nullptr;
    cpu_.on_choice = [this](const Choice& choice) { choices_.push_back(choice); };
  }

  Maker on_cpu() { return {cpu_, GetParam(), GetParam()}; }
  Maker on_ref() { return {ref_, GetParam(), GetParam()}; }
  Maker exactly() { return {ref_, GetParam(), DType::kF64}; }
  Maker magnitudes() { return {ref_, GetParam(), DType::kF64, /*magnitudes=*/true}; }

  bool is_f64() const { return GetParam() == DType::kF64; }
  DType statistics() const { return is_f64() ? DType::kF64 : DType::kF32; }

  // `roundings` f32 roundings against `terms`, none in f64; and what flushing of subnormals adds.
  Bound bound(double roundings, std::vector<double> terms, double flushed = 0) const {
    for (double& term : terms) {
      term = is_f64() ? 0 : gamma(roundings) * std::abs(term) + flushed;
    }
    return terms;
  }

  // The op was dispatched once, to the right implementation; or not at all when there was no work.
  void expect_served(const std::string& op, bool work) {
    if (!work) {
      EXPECT_TRUE(choices_.empty()) << op << " dispatched without work";
    } else if (choices_.size() != 1) {
      ADD_FAILURE() << op << " dispatched " << choices_.size() << " times";
    } else {
      EXPECT_EQ(choices_[0].op, op);
      EXPECT_EQ(choices_[0].implementation, expected_implementation(op, GetParam(), cpu_.isa));
    }
    choices_.clear();
  }

  Context cpu_, ref_;
  std::vector<Choice> choices_;
};

std::string trace(const LinearCase& c) {
  return "tokens " + std::to_string(c.tokens) + " in " + std::to_string(c.in) + " out " + std::to_string(c.out) +
         (c.bias ? " bias" : "") +
         (c.residual == Residual::kNone       ? ""
          : c.residual == Residual::kSeparate ? " residual"
                                              : " residual in place") +
         (c.strided ? " strided" : "") + (c.f32_output ? " to f32" : "");
}

TEST_P(Parity, LinearAgreesWithTheReference) {
  for (const LinearCase& c : kLinearCases) {
    if (c.f32_output && size_of(GetParam()) != 2) {
      continue;
    }
    SCOPED_TRACE(trace(c));
    const Outcome cpu = run(on_cpu(), c);
    expect_served("linear", c.tokens > 0);
    const Outcome exact = run(exactly(), c);
    const DType dtype = c.f32_output ? DType::kF32 : GetParam();
    expect_rounded(run(on_ref(), c).y, dtype, exact.y);
    // in products and sums, bias, residual.  AVX512_BF16's dot product takes subnormal terms for zero.
    const auto terms = static_cast<double>(c.in);
    expect_within(cpu.y, dtype, exact.y, bound(terms + 3, run(magnitudes(), c).y, terms * 0x1p-126));
    EXPECT_TRUE(cpu.gaps_untouched);
  }
}

TEST_P(Parity, RmsNormAgreesWithTheReference) {
  for (const NormRounding rounding : {NormRounding::kFused, NormRounding::kHuggingFace}) {
    for (const RmsNormCase& c : kRmsNormCases) {
      SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " features " + std::to_string(c.features) +
                   (rounding == NormRounding::kFused ? " fused" : " as Hugging Face") + (c.strided ? " strided" : "") +
                   (c.in_place ? " in place" : ""));
      const Outcome cpu = run(on_cpu(), c, rounding);
      expect_served("rms_norm", c.tokens > 0);
      const Outcome ref = run(on_ref(), c, rounding);
      const Outcome exact = run(exactly(), c, NormRounding::kFused);
      // A sum of squares of `features` terms under a root, which halves its relative error; then mean, eps, root,
      // reciprocal and the product with x.
      const double roundings = static_cast<double>(c.features) / 2 + 6;
      if (rounding == NormRounding::kFused) {
        expect_rounded(ref.y, GetParam(), exact.y);
        expect_within(cpu.y, GetParam(), exact.y, bound(roundings + 1, exact.y));
      } else {
        // The first rounding may fall to either side of a tie; the product with w is exact before the second.
        const Outcome normal = run(exactly(), c, NormRounding::kFused, /*unit_weight=*/true);
        const Bound error = bound(roundings, normal.y);
        const std::vector<double> w = to_doubles(exactly().vector("w", c.features, 2));
        std::vector<double> low, high, nearest;
        std::vector<double> below(normal.y), above(normal.y);
        for (std::size_t i = 0; i < normal.y.size(); ++i) {
          below[i] -= error[i];
          above[i] += error[i];
        }
        below = rounded(below, GetParam());
        above = rounded(above, GetParam());
        const std::vector<double> once = rounded(normal.y, GetParam());
        for (std::size_t i = 0; i < normal.y.size(); ++i) {
          const double weight = w[i % static_cast<std::size_t>(c.features)];
          low.push_back(std::min(below[i] * weight, above[i] * weight));
          high.push_back(std::max(below[i] * weight, above[i] * weight));
          nearest.push_back(once[i] * weight);
        }
        expect_rounded(ref.y, GetParam(), nearest);
        expect_between(cpu.y, GetParam(), low, high);
      }
      expect_rounded(ref.extra, statistics(), exact.extra);
      expect_within(cpu.extra, statistics(), exact.extra, bound(roundings, exact.extra));
      EXPECT_TRUE(cpu.gaps_untouched);
    }
  }
}

TEST_P(Parity, RopeTablesAgreeWithTheReference) {
  // The parameter is the dtype that the tables are rounded to; f64 stands for tables in f64 too.
  const DType tables = statistics();
  for (const RopeTablesCase& c : kRopeTablesCases) {
    SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " half " + std::to_string(c.half));
    const Outcome cpu = run(cpu_, tables, c, GetParam());
    expect_served("rope_tables", c.tokens > 0);
    const Outcome ref = run(ref_, tables, c, GetParam());
    const Outcome fine = run(ref_, tables, c, statistics());
    expect_rounded(ref.y, GetParam(), fine.y);
    expect_rounded(ref.extra, GetParam(), fine.extra);
    // A cosine good to 2^-40 may round to the neighbouring f32; the scaling then rounds once more on either side.
    expect_within(cpu.y, GetParam(), fine.y, bound(4, fine.y, 0x1p-40 * c.scaling));
    expect_within(cpu.extra, GetParam(), fine.extra, bound(4, fine.extra, 0x1p-40 * c.scaling));
  }
}

TEST_P(Parity, RopeAgreesWithTheReference) {
  for (const RopePairing pairing : {RopePairing::kRotateHalf, RopePairing::kInterleaved}) {
    for (const bool inverse : {false, true}) {
      for (const RopeCase& c : kRopeCases) {
        SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " heads " + std::to_string(c.heads) + " head_dim " +
                     std::to_string(c.head_dim) + (pairing == RopePairing::kRotateHalf ? " halves" : " interleaved") +
                     (inverse ? " inverse" : "") + (c.strided ? " strided" : "") + (c.in_place ? " in place" : ""));
        const Outcome cpu = run(on_cpu(), c, pairing, inverse);
        expect_served("rope", c.tokens > 0);
        const Outcome exact = run(exactly(), c, pairing, inverse);
        expect_rounded(run(on_ref(), c, pairing, inverse).y, GetParam(), exact.y);
        // Of absolute values, one direction of turning adds the two terms and the other subtracts them.
        std::vector<double> terms = run(magnitudes(), c, pairing, false).y;
        const std::vector<double> backwards = run(magnitudes(), c, pairing, true).y;
        for (std::size_t i = 0; i < terms.size(); ++i) {
          terms[i] = std::max(std::abs(terms[i]), std::abs(backwards[i]));
        }
        expect_within(cpu.y, GetParam(), exact.y, bound(2, terms));
        EXPECT_TRUE(cpu.gaps_untouched);
      }
    }
  }
}

// The bounds of attention's results: E of every element of out, and of every lse.
struct AttentionBounds {
  Bound out, lse;
};

// score_terms: at least scale * sum |q| |k| of every key a row sees, per row and head.  value_terms: sum p |v|.
AttentionBounds attention_bounds(const AttentionCase& c, const std::vector<double>& score_terms,
                                 const std::vector<double>& value_terms, const std::vector<double>& lse) {
  const auto dim = static_cast<double>(c.heads.head_dim);
  const auto keys = static_cast<double>(c.keys);
  AttentionBounds bounds;
  for (std::size_t i = 0; i < score_terms.size(); ++i) {
    if (!std::isfinite(score_terms[i])) {  // a row that sees nothing
      bounds.lse.push_back(0);
      bounds.out.insert(bounds.out.end(), static_cast<std::size_t>(c.heads.head_dim), 0);
      continue;
    }
    // A score: its product, scale, change of base, and the distance from the maximum, which errs likewise.
    const double score_error = gamma(dim + 4) * score_terms[i] + 2 * kU * score_terms[i];
    // A weight: exp of that (good to 4 u), at most a rescaling by a new maximum (6 u) every 8 keys, the sum of weights.
    const double weight_error = std::expm1(2 * score_error) + gamma(4 + 6 * keys / 8 + keys);
    bounds.lse.push_back(score_error + weight_error + gamma(4) * (score_terms[i] + std::abs(lse[i])));
    for (std::int64_t d = 0; d < c.heads.head_dim; ++d) {
      // Numerator and denominator carry the weights' errors, the numerator the roundings of its own sum.
      const double terms = value_terms[i * static_cast<std::size_t>(c.heads.head_dim) + static_cast<std::size_t>(d)];
      bounds.out.push_back((2 * weight_error + gamma(keys + 2)) * terms);
    }
  }
  return bounds;
}

TEST_P(Parity, AttentionAgreesWithTheReference) {
  for (const AttentionCase& c : kAttentionCases) {
    SCOPED_TRACE(c.name);
    const Outcome cpu = run(on_cpu(), c);
    expect_served("attention", c.queries > 0);
    AttentionCase with_lse = c;
    with_lse.lse = true;
    const Outcome exact = run(exactly(), with_lse);
    const Outcome ref = run(on_ref(), with_lse);
    expect_rounded(ref.y, GetParam(), exact.y);
    expect_rounded(ref.extra, statistics(), exact.extra);
    AttentionBounds bounds;
    if (is_f64()) {
      bounds = {Bound(exact.y.size(), 0), Bound(exact.extra.size(), 0)};
    } else {
      // The log of a sum of exponentials is at least its largest exponent.
      bounds = attention_bounds(c, run(exactly(), with_lse, Absolute::kQueryAndKey).extra,
                                run(exactly(), with_lse, Absolute::kValue).y, exact.extra);
    }
    expect_within(cpu.y, GetParam(), exact.y, bounds.out);
    if (c.lse) {
      expect_within(cpu.extra, statistics(), exact.extra, bounds.lse);
    }
    EXPECT_TRUE(cpu.gaps_untouched);
  }
}

TEST_P(Parity, SwigluAgreesWithTheReference) {
  for (const SwigluCase& c : kSwigluCases) {
    SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " features " + std::to_string(c.features) +
                 (c.strided ? " strided" : ""));
    const Outcome cpu = run(on_cpu(), c);
    expect_served("swiglu", c.tokens > 0);
    const Outcome exact = run(exactly(), c);
    expect_rounded(run(on_ref(), c).y, GetParam(), exact.y);
    // exp (good to 4 u), sum, quotient, product.  Where exp(-gate) leaves f32 (gate below -88.7) the quotient is below
    // 89 / 2^128 and may become zero.
    expect_within(cpu.y, GetParam(), exact.y, bound(7, exact.y, 89 * 0x1p-128 * c.scale));
  }
}

TEST_P(Parity, EmbeddingAgreesWithTheReference) {
  for (const EmbeddingCase& c : kEmbeddingCases) {
    SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " vocab " + std::to_string(c.vocab));
    const Outcome cpu = run(on_cpu(), c);
    expect_served("embedding", c.tokens > 0);
    EXPECT_EQ(cpu.y, run(on_ref(), c).y);
  }
}

TEST_P(Parity, LossHeadAgreesWithTheReference) {
  for (const LossHeadCase& c : kLossHeadCases) {
    SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " features " + std::to_string(c.features) + " vocab " +
                 std::to_string(c.vocab));
    const Outcome cpu = run(on_cpu(), c);
    expect_served("loss_head", c.tokens > 0);
    const Outcome exact = run(exactly(), c);
    expect_rounded(run(on_ref(), c).y, statistics(), exact.y);
    Bound error(exact.y.size(), 0);
    if (!is_f64()) {
      const std::vector<double> logits = logit_magnitudes(ref_, GetParam(), c);
      for (std::size_t t = 0; t < error.size(); ++t) {
        // A logit and its distance from the maximum; exp (4 u) and its rescalings (6 u, at most one in 8 columns); a
        // sum in at least 8 lanes; the logarithm and the two last sums.
        const double logit_error = gamma(static_cast<double>(c.features) + 2) * logits[t];
        const double columns = static_cast<double>(c.vocab) / 8 + 8;
        error[t] = 2 * logit_error + 2 * kU * logits[t] + gamma(7 * columns + 4) +
                   gamma(4) * (2 * logits[t] + std::log(static_cast<double>(c.vocab)));
        if (c.ignored_every > 0 && static_cast<int>(t) % c.ignored_every == c.ignored_every - 1) {
          error[t] = 0;
        }
      }
    }
    expect_within(cpu.y, statistics(), exact.y, error);
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Parity, ::testing::ValuesIn(kFloats),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace caravan::ops::testing

// Every case of every op on the cpu backend against the reference, in every dtype, at the level of instructions that
// CARAVAN_MAX_ISA names (ctest runs this program once a level), asserting which implementation served.  How far the two
// may be apart: parity.h.
#include "tests/ops/parity.h"

#include "tests/ops/runs.h"

namespace caravan::ops::testing {
namespace {

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
    Bound error = bound(terms + 3, run(magnitudes(), c).y, terms * 0x1p-126);
    LinearCase product = c;
    product.bias = false;
    product.residual = Residual::kNone;
    add_rounding_of(error, dtype, run(exactly(), product).y, c.bias || c.residual != Residual::kNone);
    product.residual = c.residual;  // and once more before the bias, which comes last
    add_rounding_of(error, dtype, run(exactly(), product).y, c.bias && c.residual != Residual::kNone);
    expect_within(cpu.y, dtype, exact.y, error);
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

TEST_P(Parity, AttentionAgreesWithTheReference) {
  const auto check = [this](const AttentionCase& c) {
    SCOPED_TRACE(c.name);
    const Outcome cpu = run(on_cpu(), c);
    expect_served_by("attention", c.queries > 0, attention_kernels(c, "attention"));
    AttentionCase with_lse = c;
    with_lse.lse = true;
    const Outcome exact = run(exactly(), with_lse);
    const Outcome ref = run(on_ref(), with_lse);
    expect_rounded(ref.y, GetParam(), exact.y);
    expect_rounded(ref.extra, statistics(), exact.extra);
    AttentionBounds bounds;
    if (is_f64() && !kOnCuda) {
      bounds = {Bound(exact.y.size(), 0), Bound(exact.extra.size(), 0)};
    } else {
      // The log of a sum of exponentials is at least its largest exponent.
      bounds = attention_bounds(c, run(exactly(), with_lse, Absolute::kQueryAndKey).extra,
                                run(exactly(), with_lse, Absolute::kValue).y, exact.extra, by_pairs(c) ? kUbf16 : 0);
      for (double& one : bounds.out) {
        one *= is_f64() ? kF64Share : 1.0;
      }
      for (double& one : bounds.lse) {
        one *= is_f64() ? kF64Share : 1.0;
      }
    }
    expect_within(cpu.y, GetParam(), exact.y, bounds.out);
    if (c.lse) {
      expect_within(cpu.extra, statistics(), exact.extra, bounds.lse);
    }
    EXPECT_TRUE(cpu.gaps_untouched);
  };
  with_and_without_pairs([&] { std::ranges::for_each(kAttentionCases, check); });
}

TEST_P(Parity, AttentionIsNaNWhereTheReferenceIs) {
  const auto check = [this](const AttentionCase& c) {
    constexpr std::int64_t kMostPairs = 20000;
    if (visible_pairs(c.ranges) == 0 || visible_pairs(c.ranges) > kMostPairs) {
      return;
    }
    AttentionCase with_lse = c;
    with_lse.lse = true;
    const Outcome clean = run(on_cpu(), with_lse);
    for (const Poisoned poisoned : {Poisoned::kQuery, Poisoned::kKey, Poisoned::kValue}) {
      SCOPED_TRACE(c.name + " NaN in input " + std::to_string(static_cast<int>(poisoned)));
      const Outcome cpu = run(on_cpu(), with_lse, Absolute::kNothing, poisoned);
      const Outcome ref = run(on_ref(), with_lse, Absolute::kNothing, poisoned);
      expect_nan_where(cpu.y, ref.y);
      if (poisoned != Poisoned::kValue) {
        expect_nan_where(cpu.extra, ref.extra);
      }
      // A query's numbers are its own.
      for (std::size_t i = 0; i < cpu.y.size() && poisoned == Poisoned::kQuery; ++i) {
        EXPECT_TRUE(std::isnan(ref.y[i]) || cpu.y[i] == clean.y[i]) << i;
      }
    }
    choices_.clear();
  };
  with_and_without_pairs([&] { std::ranges::for_each(kAttentionCases, check); });
}

TEST_P(Parity, CachedAttentionAgreesWithTheReference) {
  for (const AttentionCase& c : kCachedAttentionCases) {
    SCOPED_TRACE(c.name);
    const Outcome cpu = run_cached(on_cpu(), c);
    expect_served_by(kOnCuda ? "cached_attention" : "attention", true, attention_kernels(c, "attention"));
    const Outcome exact = run(exactly(), c);
    expect_rounded(run_cached(on_ref(), c).y, GetParam(), exact.y);
    AttentionBounds bounds{Bound(exact.y.size(), 0), {}};
    if (!is_f64() || kOnCuda) {
      // Every key may bring a new maximum, and so may the joints of stretches, of 4 warps and of a warp's slots.
      bounds =
          attention_bounds(c, run(exactly(), c, Absolute::kQueryAndKey).extra, run(exactly(), c, Absolute::kValue).y,
                           exact.extra, !kOnCuda && by_pairs(c) ? kUbf16 : 0, static_cast<double>(c.keys) + 12);
      for (double& one : bounds.out) {
        one *= is_f64() ? kF64Share : 1.0;
      }
    }
    expect_within(cpu.y, GetParam(), exact.y, bounds.out);
    EXPECT_TRUE(cpu.gaps_untouched);
    for (const Poisoned poisoned : {Poisoned::kQuery, Poisoned::kKey, Poisoned::kValue}) {
      SCOPED_TRACE("NaN in input " + std::to_string(static_cast<int>(poisoned)));
      expect_nan_where(run_cached(on_cpu(), c, poisoned).y, run_cached(on_ref(), c, poisoned).y);
    }
    choices_.clear();
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
    expect_within(cpu.y, statistics(), exact.y, nll_bounds(ref_, GetParam(), c));
  }
}

TEST_P(Parity, LossHeadIsNaNWhereTheReferenceIs) {
  for (const LossHeadCase& c : kLossHeadCases) {
    if (c.tokens == 0 || c.ignored_every == 1) {
      continue;
    }
    for (const PoisonedHead poisoned : {PoisonedHead::kHidden, PoisonedHead::kWeight}) {
      SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " vocab " + std::to_string(c.vocab) +
                   (poisoned == PoisonedHead::kHidden ? " NaN in hidden" : " NaN in the weight"));
      expect_nan_where(run(on_cpu(), c, poisoned).y, run(on_ref(), c, poisoned).y);
    }
    choices_.clear();
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Parity, ::testing::ValuesIn(kFloats),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace caravan::ops::testing

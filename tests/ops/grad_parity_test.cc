// Every case of every backward op, AdamW and the elementwise ops on the cpu backend against the reference, as
// parity_test.cc does for the forward ops.  How far the two may be apart: parity.h.
#include "tests/ops/grad_runs.h"
#include "tests/ops/parity.h"

namespace caravan::ops::testing {
namespace {

using Doubles = std::vector<double>;

const Accumulate kBoth[] = {Accumulate::kStore, Accumulate::kAdd};

class BackwardParity : public Parity {
 protected:
  // Kernels of pairs round P and dS to bf16.  cuDNN's deterministic backward rounds to the dtype where its scratch is of it:
  // P, dP and dS, and the gradients of a group's heads before they are added.
  double grad_roundoff(const AttentionCase& c) const {
    const double unit = GetParam() == DType::kF16 ? 0x1p-11 : kUbf16;
    return !by_pairs(c) ? 0 : kOnCuda ? 4 * unit : unit;
  }
  double grad_flushed(const AttentionCase& c) const {
    if (kOnCuda && by_pairs(c) && GetParam() == DType::kF16) {
      return 4 * 0x1p-25;  // half of f16's smallest step, as often
    }
    return by_pairs(c) ? 0x1p-120 : 0x1p-126;
  }

  // A gradient of no tokens is zeros when storing and left alone when adding.
  void expect_gradient_served(const std::string& op, bool work, std::int64_t elements, Accumulate accumulate) {
    const bool zeros = !work && elements > 0 && accumulate == Accumulate::kStore;
    expect_served(zeros ? "zero" : op, work || zeros);
  }
};

const char* name_of(Accumulate accumulate) {
  return accumulate == Accumulate::kAdd ? " adding" : " storing";
}

std::string trace(const LinearCase& c, Accumulate accumulate) {
  return "tokens " + std::to_string(c.tokens) + " in " + std::to_string(c.in) + " out " + std::to_string(c.out) +
         (c.strided ? " strided" : "") + name_of(accumulate);
}

TEST_P(BackwardParity, LinearInputGradAgreesWithTheReference) {
  for (const Accumulate accumulate : kBoth) {
    for (const LinearCase& c : kLinearCases) {
      SCOPED_TRACE(trace(c, accumulate));
      const Outcome cpu = run_input_grad(on_cpu(), c, accumulate);
      expect_served("linear_input_grad", c.tokens > 0);
      const Outcome exact = run_input_grad(exactly(), c, accumulate);
      expect_rounded(run_input_grad(on_ref(), c, accumulate).y, GetParam(), exact.y);
      // out products and sums, and what is added to.  AVX512_BF16's dot product takes subnormal terms for zero.
      const auto terms = static_cast<double>(c.out);
      const Doubles magnitude = run_input_grad(magnitudes(), c, accumulate).y;
      Bound error = bound(terms + 2, magnitude, terms * 0x1p-126);
      add_rounding_of(error, GetParam(), run_input_grad(exactly(), c, Accumulate::kStore).y,
                      accumulate == Accumulate::kAdd);
      expect_within(cpu.y, GetParam(), exact.y, error);
      EXPECT_TRUE(cpu.gaps_untouched);
    }
  }
}

TEST_P(BackwardParity, LinearWeightGradAgreesWithTheReference) {
  for (const Accumulate accumulate : kBoth) {
    for (const LinearCase& c : kLinearCases) {
      SCOPED_TRACE(trace(c, accumulate));
      const Outcome cpu = run_weight_grad(on_cpu(), c, accumulate);
      const bool narrow = !kOnCuda && c.tokens > 0 && GetParam() == DType::kF32 && cpu_.isa < Isa::kAvx512 &&
                          c.in <= 256 && c.out >= 512;
      if (narrow) {
        expect_served_by("linear_weight_grad", true, "simd-narrow");
      } else {
        expect_gradient_served("linear_weight_grad", c.tokens > 0, c.in * c.out, accumulate);
      }
      const Outcome exact = run_weight_grad(exactly(), c, accumulate);
      expect_rounded(run_weight_grad(on_ref(), c, accumulate).y, statistics(), exact.y);
      const auto terms = static_cast<double>(c.tokens);
      const Doubles magnitude = run_weight_grad(magnitudes(), c, accumulate).y;
      expect_within(cpu.y, statistics(), exact.y, bound(terms + 2, magnitude, terms * 0x1p-126));
    }
  }
}

TEST_P(BackwardParity, BiasGradAgreesWithTheReference) {
  for (const Accumulate accumulate : kBoth) {
    for (const LinearCase& c : kLinearCases) {
      SCOPED_TRACE(trace(c, accumulate));
      const Outcome cpu = run_bias_grad(on_cpu(), c, accumulate);
      expect_gradient_served("bias_grad", c.tokens > 0, c.out, accumulate);
      const Outcome exact = run_bias_grad(exactly(), c, accumulate);
      expect_rounded(run_bias_grad(on_ref(), c, accumulate).y, statistics(), exact.y);
      const Doubles magnitude = run_bias_grad(magnitudes(), c, accumulate).y;
      expect_within(cpu.y, statistics(), exact.y, bound(static_cast<double>(c.tokens) + 1, magnitude));
    }
  }
}

std::string trace(const RmsNormCase& c, Accumulate accumulate) {
  return "tokens " + std::to_string(c.tokens) + " features " + std::to_string(c.features) +
         (c.strided ? " strided" : "") + (c.in_place ? " in place" : "") + name_of(accumulate);
}

TEST_P(BackwardParity, RmsNormInputGradAgreesWithTheReference) {
  for (const Accumulate accumulate : kBoth) {
    for (const RmsNormCase& c : kRmsNormCases) {
      SCOPED_TRACE(trace(c, accumulate));
      const Outcome cpu = run_input_grad(on_cpu(), c, accumulate);
      expect_served("rms_norm_input_grad", c.tokens > 0);
      const Outcome exact = run_input_grad(exactly(), c, accumulate);
      expect_rounded(run_input_grad(on_ref(), c, accumulate).y, GetParam(), exact.y);
      // r |g| + |x| r^3 mean |g x| (+ |dx|).  Two roundings a term and its sums make mean(g x), the division and the
      // cube of r four more; then products with x and r, the difference, the sum with dx.
      const Maker make = magnitudes();
      const auto n = static_cast<std::size_t>(c.features);
      const Doubles dy = to_doubles(make.input("dy", c.tokens, c.features, 1).view);
      const Doubles x = to_doubles(make.input("x", c.tokens, c.features, c.scale).view);
      const Doubles w = to_doubles(make.vector("w", c.features, 2));
      const Doubles r = to_doubles(rstd_of(make, c));
      Doubles terms = accumulate == Accumulate::kAdd ? to_doubles(make.input("dx", c.tokens, c.features, 4).view)
                                                     : Doubles(dy.size(), 0);
      for (std::size_t t = 0; t < r.size(); ++t) {
        double mean = 0;
        for (std::size_t i = 0; i < n; ++i) {
          mean += dy[t * n + i] * w[i] * x[t * n + i] / static_cast<double>(n);
        }
        for (std::size_t i = 0; i < n; ++i) {
          terms[t * n + i] += r[t] * dy[t * n + i] * w[i] + x[t * n + i] * r[t] * r[t] * r[t] * mean;
        }
      }
      expect_within(cpu.y, GetParam(), exact.y, bound(static_cast<double>(n) + 10, terms));
      EXPECT_TRUE(cpu.gaps_untouched);
    }
  }
}

TEST_P(BackwardParity, RmsNormWeightGradAgreesWithTheReference) {
  for (const NormRounding rounding : {NormRounding::kFused, NormRounding::kHuggingFace}) {
    for (const Accumulate accumulate : kBoth) {
      for (const RmsNormCase& c : kRmsNormCases) {
        SCOPED_TRACE(trace(c, accumulate) + (rounding == NormRounding::kFused ? " fused" : " as Hugging Face"));
        const Outcome cpu = run_weight_grad(on_cpu(), c, rounding, accumulate);
        expect_gradient_served("rms_norm_weight_grad", c.tokens > 0, c.features, accumulate);
        // x * rstd rounded to x's dtype, as by both; in f32 it may fall to either side of a tie.
        const auto n = static_cast<std::size_t>(c.features);
        const Doubles dy = to_doubles(exactly().input("dy", c.tokens, c.features, 1).view);
        const Doubles r = to_doubles(rstd_of(exactly(), c));
        Doubles normal = to_doubles(exactly().input("x", c.tokens, c.features, c.scale).view);
        for (std::size_t i = 0; i < normal.size(); ++i) {
          normal[i] *= r[i / n];
        }
        Doubles below(normal), above(normal);
        for (std::size_t i = 0; i < normal.size() && !is_f64(); ++i) {
          below[i] -= kU * std::abs(normal[i]);
          above[i] += kU * std::abs(normal[i]);
        }
        if (rounding == NormRounding::kHuggingFace) {
          normal = rounded(normal, GetParam());
          below = rounded(below, GetParam());
          above = rounded(above, GetParam());
        }
        const bool adding = accumulate == Accumulate::kAdd;
        Doubles exact = adding ? to_doubles(weight_gradient(exactly(), 1, c.features, accumulate)) : Doubles(n, 0);
        Doubles slack(n, 0), terms(n, 0);
        for (std::size_t i = 0; i < n; ++i) {
          double sum = 0;  // apart, as the reference sums
          for (std::size_t at = i; at < normal.size(); at += n) {
            sum += dy[at] * normal[at];
            slack[i] += std::abs(dy[at]) * std::max(above[at] - normal[at], normal[at] - below[at]);
            terms[i] += std::abs(dy[at]) * std::max(std::abs(above[at]), std::abs(below[at]));
          }
          terms[i] += std::abs(exact[i]);
          exact[i] += sum;
        }
        expect_rounded(run_weight_grad(on_ref(), c, rounding, accumulate).y, statistics(), exact);
        Bound error = bound(static_cast<double>(c.tokens) + 2, terms);
        for (std::size_t i = 0; i < n; ++i) {
          error[i] += is_f64() ? 0 : slack[i];
        }
        expect_within(cpu.y, statistics(), exact, error);
      }
    }
  }
}

TEST_P(BackwardParity, SwigluGradAgreesWithTheReference) {
  for (const bool in_place : {false, true}) {
    for (const SwigluCase& c : kSwigluCases) {
      SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " features " + std::to_string(c.features) +
                   (c.strided ? " strided" : "") + (in_place ? " in place" : ""));
      const Outcome cpu = run_grad(on_cpu(), c, in_place);
      expect_served("swiglu_grad", c.tokens > 0);
      const Outcome exact = run_grad(exactly(), c, in_place);
      expect_rounded(run_grad(on_ref(), c, in_place).y, GetParam(), exact.y);
      // s: exp (good to 4 u), sum, quotient: 6 u.  1 - s, taken as it stands: 6 u s + u.  So s (1 + gate (1 - s)) errs
      // by no more than 14 u s (1 + |gate|); two products with dy and up follow.  s (below 2^-127 where exp(-gate)
      // leaves f32, gate below -88.7) may become zero.
      const auto features = static_cast<std::size_t>(c.features);
      const Doubles gate_up = to_doubles(exactly().input("gate_up", c.tokens, 2 * c.features, c.scale).view);
      const Doubles dy = to_doubles(exactly().input("dy", c.tokens, c.features, 1).view);
      Bound error(exact.y.size(), 0);
      const double share = is_f64() ? kF64Share : 1.0;
      for (std::size_t k = 0; k < dy.size(); ++k) {
        const std::size_t gate_at = k / features * 2 * features + k % features;
        const double gate = gate_up[gate_at];
        const double up = gate_up[gate_at + features];
        const double sigmoid = 1 / (1 + std::exp(-gate));
        error[gate_at] = std::abs(dy[k] * up) * (1 + std::abs(gate)) * (gamma(16) * sigmoid + 0x1p-126) * share;
        error[gate_at + features] = std::abs(dy[k] * gate) * (gamma(9) * sigmoid + 0x1p-126) * share;
      }
      expect_within(cpu.y, GetParam(), exact.y, error);
      EXPECT_TRUE(cpu.gaps_untouched);
    }
  }
}

TEST_P(BackwardParity, EmbeddingWeightGradAgreesWithTheReferenceAndLeavesOtherRowsAlone) {
  for (const EmbeddingCase& c : kEmbeddingCases) {
    SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " vocab " + std::to_string(c.vocab));
    const Outcome cpu = run_grad(on_cpu(), c);
    expect_served("embedding_weight_grad", c.tokens > 0);
    const Outcome exact = run_grad(exactly(), c);
    expect_rounded(run_grad(on_ref(), c).y, statistics(), exact.y);
    // A row of the table has as many sums as tokens with its id.
    std::vector<double> counts(static_cast<std::size_t>(c.vocab), 0);
    for (const std::int32_t id : ids_of(c)) {
      if (id >= 0) {
        ++counts[static_cast<std::size_t>(id)];
      }
    }
    Bound error = run_grad(magnitudes(), c).y;
    for (std::size_t i = 0; i < error.size(); ++i) {
      error[i] *= (is_f64() ? kF64Share : 1.0) * gamma(counts[i / static_cast<std::size_t>(c.hidden)]);
    }
    expect_within(cpu.y, statistics(), exact.y, error);
  }
}

// What a row of one query head adds up in attention's backward, and the bounds that follow.
class AttentionGradBounds {
 public:
  // roundoff: of P and dS, where they are rounded before they meet the other factor; flushed: what they lose below the
  // normal numbers.
  AttentionGradBounds(const Maker& exactly, const AttentionCase& c, const AttentionResults& results, double roundoff,
                      double flushed)
      : roundoff_(roundoff),
        flushed_(flushed),
        c_(c),
        inputs_(exactly, c),
        results_(results),
        dim_(static_cast<std::size_t>(c.heads.head_dim)) {
    query_ = to_doubles(inputs_.query.view);
    key_ = to_doubles(inputs_.key.view);
    value_ = to_doubles(inputs_.value.view);
    d_out_ = to_doubles(exactly.input("d_out", c.queries, c.heads.heads * c.heads.head_dim, 1).view);
    bounds_ = {Doubles(query_.size(), 0), Doubles(key_.size(), 0), Doubles(value_.size(), 0)};
    for (const AttentionRange& range : c.ranges) {
      for (std::int64_t q = range.query_begin; q < range.query_end; ++q) {
        for (std::int64_t k = range.key_begin; k < range.key_end; ++k) {
          for (std::int64_t h = 0; h < c.heads.heads && k - range.key_begin - (q - range.query_begin) <= range.diagonal;
               ++h) {
            add_pair(static_cast<std::size_t>(q), static_cast<std::size_t>(k), static_cast<std::size_t>(h));
          }
        }
      }
    }
  }

  const AttentionGradients& bounds() const { return bounds_; }

 private:
  // The errors of one probability P and one dS reach a key's row of d_query, d_key and d_value.
  //   score s    its product of head_dim terms, scale, change of base; its distance from lse
  //   P          exp of that, good to 4 u
  //   dS         P (dP - D), where dP and D are products of head_dim terms: below P A, A = sum |d_out| (|v| + |out|)
  // Both then are terms of sums over the keys of a query, or over the queries and heads of a key.
  void add_pair(std::size_t q, std::size_t k, std::size_t h) {
    const auto heads = static_cast<std::size_t>(c_.heads.heads);
    const auto kv_heads = static_cast<std::size_t>(c_.heads.kv_heads);
    const std::size_t query_at = (q * heads + h) * dim_;
    const std::size_t key_at = (k * kv_heads + h / (heads / kv_heads)) * dim_;
    const double lse = results_.lse[q * heads + h];
    double score = 0, score_terms = 0, terms = 0;
    for (std::size_t d = 0; d < dim_; ++d) {
      score += inputs_.scale * query_[query_at + d] * key_[key_at + d];
      score_terms += inputs_.scale * std::abs(query_[query_at + d] * key_[key_at + d]);
      terms += std::abs(d_out_[query_at + d]) * (std::abs(value_[key_at + d]) + std::abs(results_.out[query_at + d]));
    }
    const auto dim = static_cast<double>(dim_);
    const double exponent_error = gamma(dim + 4) * score_terms + 3 * kU * (score_terms + std::abs(lse));
    const double p_error = std::expm1(exponent_error) * (1 + gamma(4)) + gamma(4);
    const double p = std::exp(score - lse);
    // A sum of a key's row, and of a query's; scale and the last rounding of f32.
    const double key_sums = gamma(static_cast<double>(c_.queries) * static_cast<double>(heads / kv_heads) + 4);
    const double query_sums = gamma(static_cast<double>(c_.keys) + 4);
    const double d_score_error = (1 + p_error) * (1 + gamma(dim + 4)) * (1 + roundoff_) - 1;
    const double rounded_p_error = (1 + p_error) * (1 + roundoff_) - 1;
    for (std::size_t d = 0; d < dim_; ++d) {
      const double to_query = inputs_.scale * terms * std::abs(key_[key_at + d]);
      const double to_key = inputs_.scale * terms * std::abs(query_[query_at + d]);
      const double to_value = std::abs(d_out_[query_at + d]);
      bounds_.query[query_at + d] += to_query * (p * ((1 + d_score_error) * (1 + query_sums) - 1) + flushed_);
      bounds_.key[key_at + d] += to_key * (p * ((1 + d_score_error) * (1 + key_sums) - 1) + flushed_);
      bounds_.value[key_at + d] += to_value * (p * ((1 + rounded_p_error) * (1 + key_sums) - 1) + flushed_);
    }
  }

  const double roundoff_;
  const double flushed_;
  const AttentionCase& c_;
  AttentionInputs inputs_;
  const AttentionResults& results_;
  std::size_t dim_;
  Doubles query_, key_, value_, d_out_;
  AttentionGradients bounds_;
};

TEST_P(BackwardParity, AttentionGradAgreesWithTheReference) {
  const auto check = [this](const AttentionCase& c) {
    SCOPED_TRACE(c.name);
    const AttentionResults results = attention_results(ref_, GetParam(), c);
    const AttentionGradients cpu = run_grad(on_cpu(), c, results);
    if (c.queries > 0 && c.keys > 0) {
      expect_served_by("attention_grad", true, attention_kernels(c, "attention_grad"));
    }
    choices_.clear();
    const AttentionGradients exact = run_grad(exactly(), c, results);
    const AttentionGradients ref = run_grad(on_ref(), c, results);
    expect_rounded(ref.query, GetParam(), exact.query);
    expect_rounded(ref.key, GetParam(), exact.key);
    expect_rounded(ref.value, GetParam(), exact.value);
    AttentionGradients bounds = {Doubles(exact.query.size(), 0), Doubles(exact.key.size(), 0),
                                 Doubles(exact.value.size(), 0)};
    if (!is_f64() || kOnCuda) {
      bounds = AttentionGradBounds(exactly(), c, results, grad_roundoff(c), grad_flushed(c)).bounds();
      for (Doubles* part : {&bounds.query, &bounds.key, &bounds.value}) {
        for (double& one : *part) {
          one *= is_f64() ? kF64Share : 1.0;
        }
      }
    }
    expect_within(cpu.query, GetParam(), exact.query, bounds.query);
    expect_within(cpu.key, GetParam(), exact.key, bounds.key);
    expect_within(cpu.value, GetParam(), exact.value, bounds.value);
    EXPECT_TRUE(cpu.gaps_untouched);
  };
  with_and_without_pairs([&] { std::ranges::for_each(kAttentionCases, check); });
}

// The bounds of the loss head's gradients.
struct LossGradBounds {
  Bound d_hidden, dw;
};

// coefficient_roundoff: of scale (softmax - onehot), when it is rounded before the products; 0 when it is not.  flushed: what
// softmax - onehot loses below the normal numbers.
LossGradBounds loss_grad_bounds(Context& ref, DType dtype, const LossHeadCase& c, double coefficient_roundoff,
                                double flushed) {
  const Maker exactly{ref, dtype, DType::kF64};
  const LossHeadInputs inputs(exactly, c);
  const Doubles hidden = to_doubles(exactly.input("hidden", c.tokens, c.features, 1).view);
  const Doubles w = to_doubles(inputs.w.plain());
  const Doubles logit_terms = logit_magnitudes(ref, dtype, c);
  const Bound nll_error = nll_bounds(ref, dtype, c);
  const Doubles nll = run(exactly, c).y;
  const Tensor all_logits = ref.allocate(DType::kF64, {c.tokens, c.vocab});
  linear(ref, all_logits, exactly.input("hidden", c.tokens, c.features, 1).view, inputs.w);
  const Doubles logits = to_doubles(all_logits);

  const auto features = static_cast<std::size_t>(c.features);
  const auto vocab = static_cast<std::size_t>(c.vocab);
  LossGradBounds bounds{Bound(hidden.size(), 0), Bound(w.size(), 0)};
  const double scale = loss_scale(c);
  const double over_vocab = gamma(static_cast<double>(c.vocab) + 4);
  const double over_tokens = gamma(static_cast<double>(c.tokens) + 4);
  for (std::size_t t = 0; t < inputs.targets.size(); ++t) {
    if (inputs.ignored[t]) {
      continue;
    }
    const auto target = static_cast<std::size_t>(inputs.targets[t]);
    const double normaliser = nll[t] + logits[t * vocab + target];
    // The exponent errs as the loss does, and by its own two differences; exp 4 u, reciprocal, products, difference.
    const double p_error = std::expm1(nll_error[t] + 4 * kU * logit_terms[t]) + gamma(8);
    const double coefficient_error = (1 + p_error) * (1 + gamma(3)) * (1 + coefficient_roundoff) - 1;
    for (std::size_t v = 0; v < vocab; ++v) {
      const double p = std::exp(logits[t * vocab + v] - normaliser) + (v == target ? 1 : 0) + 0x1p-120;
      for (std::size_t i = 0; i < features; ++i) {
        bounds.d_hidden[t * features + i] +=
            scale * std::abs(w[v * features + i]) * (p * ((1 + coefficient_error) * (1 + over_vocab) - 1) + flushed);
        bounds.dw[v * features + i] += scale * std::abs(hidden[t * features + i]) *
                                       (p * ((1 + coefficient_error) * (1 + over_tokens) - 1) + flushed);
      }
    }
  }
  const Doubles before = to_doubles(weight_gradient(exactly, c.vocab, c.features, Accumulate::kAdd));
  for (std::size_t i = 0; i < before.size(); ++i) {
    bounds.dw[i] += over_tokens * std::abs(before[i]);
  }
  return bounds;
}

TEST_P(BackwardParity, LossHeadWithGradAgreesWithTheReference) {
  for (const LossHeadCase& c : kLossHeadCases) {
    SCOPED_TRACE("tokens " + std::to_string(c.tokens) + " features " + std::to_string(c.features) + " vocab " +
                 std::to_string(c.vocab));
    const LossHeadGradients cpu = run_grad(on_cpu(), c);
    expect_served("loss_head_with_grad", c.tokens > 0);
    const LossHeadGradients exact = run_grad(exactly(), c);
    const LossHeadGradients ref = run_grad(on_ref(), c);
    expect_rounded(ref.nll, statistics(), exact.nll);
    expect_rounded(ref.d_hidden, GetParam(), exact.d_hidden);
    expect_rounded(ref.dw, statistics(), exact.dw);
    LossGradBounds bounds{Bound(exact.d_hidden.size(), 0), Bound(exact.dw.size(), 0)};
    if (!is_f64() || kOnCuda) {
      // Where bf16 is multiplied as it stands, the coefficients are rounded to it: 8 significant bits.
      const bool bf16_products = GetParam() == DType::kBF16 && (kOnCuda || cpu_.isa >= Isa::kAvx512Bf16);
      // So are f16's on a GPU: to 11 bits, and of 2^15 to half the step of its subnormal numbers.
      const bool f16_products = GetParam() == DType::kF16 && kOnCuda;
      bounds = loss_grad_bounds(ref_, GetParam(), c,
                                bf16_products  ? 0x1p-8
                                : f16_products ? 0x1p-11
                                               : 0,
                                f16_products ? 0x1p-25 * 0x1p-15 : 0);
      for (Bound* part : {&bounds.d_hidden, &bounds.dw}) {
        for (double& one : *part) {
          one *= is_f64() ? kF64Share : 1.0;
        }
      }
    }
    expect_within(cpu.nll, statistics(), exact.nll, nll_bounds(ref_, GetParam(), c));
    expect_within(cpu.d_hidden, GetParam(), exact.d_hidden, bounds.d_hidden);
    expect_within(cpu.dw, statistics(), exact.dw, bounds.dw);
    // Whether the weight is trained changes nothing else.
    const LossHeadGradients frozen = run_grad(on_cpu(), c, /*weight_trained=*/false);
    EXPECT_EQ(frozen.nll, cpu.nll);
    EXPECT_EQ(frozen.d_hidden, cpu.d_hidden);
    choices_.clear();
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, BackwardParity, ::testing::ValuesIn(kFloats),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace caravan::ops::testing

// What the parity tests share: the levels of instructions, the bounds of f32 arithmetic, and who must have served.
//
// What a kernel may return is derived, not tuned.  `exact` is the reference's result in f64 on the very inputs of the
// run.  A kernel computes in f32, so it may err by a bound E that follows from the unit roundoff u = 2^-24, the length
// of its sums and the sum of the absolute terms (Higham 2002, 3.1: n roundings err by gamma(n) = n u / (1 - n u)); then
// it rounds once to the result's dtype.  Rounding is monotonous, so the result lies in
// [round(exact - E), round(exact + E)] and a second rounding on the way shows.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <optional>

#include "caravan/tensor/cuda_memory.h"
#include "tests/ops/runs.h"
#include "tests/support/isa.h"

namespace caravan::ops::testing {

// Whether this program tests the CUDA backend (real or emulated) and not the processor's.
#ifdef CARAVAN_TEST_CUDA
inline constexpr bool kOnCuda = true;
#else
inline constexpr bool kOnCuda = false;
#endif

inline constexpr double kU = 0x1p-24;

// f64 on the processor is the reference itself.  On a GPU it has kernels, whose roundings are 2^-29 of f32's; four of them
// for the roundings of the exact result.
inline constexpr double kF64Share = kOnCuda ? 0x1p-27 : 0.0;

inline double gamma(double roundings) {
  return roundings * kU / (1 - roundings * kU);
}

using Bound = std::vector<double>;

// `got` of `dtype` lies between the roundings of low and high.
inline void expect_between(const std::vector<double>& got, DType dtype, const std::vector<double>& low,
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

inline void expect_within(const std::vector<double>& got, DType dtype, const std::vector<double>& exact,
                          const Bound& error) {
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
inline void expect_rounded(const std::vector<double>& got, DType dtype, const std::vector<double>& exact) {
  expect_between(got, dtype, exact, exact);
}

// Which implementation must serve an op: the table that the documentation's support matrix is made from.
// What rounding to bf16 changes at most, relatively.
inline constexpr double kUbf16 = 0x1p-8;

// nullptr: any of the backend's own.
inline const char* expected_implementation(const std::string& op, DType dtype, Isa isa) {
  if (kOnCuda) {
    return nullptr;
  }
  if (op == "zero") {
    return "rows";
  }
  if (dtype == DType::kF64) {
    return "ref";
  }
  if (op.starts_with("linear") || op.starts_with("loss_head")) {
    // oneDNN multiplies bf16 well where AVX512_BF16 does; f16 it does not multiply at all.
    const bool native = dtype == DType::kF32 || (dtype == DType::kBF16 && isa >= Isa::kAvx512Bf16);
    return native ? "onednn" : "onednn-upcast";
  }
  if (op == "embedding") {
    return "rows";
  }
  return isa >= Isa::kAvx512 ? "simd:avx512" : "simd:avx2";
}

// The bounds of every token's loss.
inline Bound nll_bounds(Context& ref, DType dtype, const LossHeadCase& c) {
  Bound error(static_cast<std::size_t>(c.tokens), 0);
  if (dtype == DType::kF64 && !kOnCuda) {
    return error;
  }
  const double share = dtype == DType::kF64 ? kF64Share : 1.0;
  const std::vector<double> logits = logit_magnitudes(ref, dtype, c);
  for (std::size_t t = 0; t < error.size(); ++t) {
    // A logit and its distance from the maximum; exp (4 u) and its rescalings (6 u, at most one in 8 columns); a
    // sum in at least 8 lanes; the logarithm and the two last sums.
    const double logit_error = gamma(static_cast<double>(c.features) + 2) * logits[t];
    const double columns = static_cast<double>(c.vocab) / 8 + 8;
    const bool ignored = c.ignored_every > 0 && static_cast<int>(t) % c.ignored_every == c.ignored_every - 1;
    error[t] = ignored ? 0
                       : 2 * logit_error + 2 * kU * logits[t] + gamma(7 * columns + 4) +
                             gamma(4) * (2 * logits[t] + std::log(static_cast<double>(c.vocab)));
    error[t] *= share;
  }
  return error;
}

// The bounds of attention's results: E of every element of out, and of every lse.
struct AttentionBounds {
  Bound out, lse;
};

// score_terms: at least scale * sum |q| |k| of every key a row sees, per row and head.  value_terms: sum p |v|.
// weight_roundoff: of the weights, where they are rounded before they meet the values.  rescalings: how often a new maximum
// may come, once in 8 keys unless it is given.
inline AttentionBounds attention_bounds(const AttentionCase& c, const std::vector<double>& score_terms,
                                        const std::vector<double>& value_terms, const std::vector<double>& lse,
                                        double weight_roundoff, std::optional<double> rescalings = {}) {
  const auto dim = static_cast<double>(c.heads.head_dim);
  const auto keys = static_cast<double>(c.keys);
  const double flushed = weight_roundoff > 0 ? 0x1p-120 : 0;  // weights and products below bf16's normal numbers
  AttentionBounds bounds;
  for (std::size_t i = 0; i < score_terms.size(); ++i) {
    if (!std::isfinite(score_terms[i])) {  // a row that sees nothing
      bounds.lse.push_back(0);
      bounds.out.insert(bounds.out.end(), static_cast<std::size_t>(c.heads.head_dim), 0);
      continue;
    }
    // A score: its product, scale, change of base, and the distance from the maximum, which errs likewise.
    const double score_error = gamma(dim + 4) * score_terms[i] + 2 * kU * score_terms[i];
    // A weight: exp of that (good to 4 u), rescalings by a new maximum (6 u each), the sum of weights.
    const double weight_error = std::expm1(2 * score_error) + gamma(4 + 6 * rescalings.value_or(keys / 8) + keys);
    bounds.lse.push_back(score_error + weight_error + gamma(4) * (score_terms[i] + std::abs(lse[i])));
    for (std::int64_t d = 0; d < c.heads.head_dim; ++d) {
      // Numerator and denominator carry the weights' errors, the numerator the roundings of its own sum.
      const double terms = value_terms[i * static_cast<std::size_t>(c.heads.head_dim) + static_cast<std::size_t>(d)];
      bounds.out.push_back((2 * weight_error + gamma(keys + 2) + weight_roundoff * (1 + 2 * weight_error)) * terms +
                           flushed * keys);
    }
  }
  return bounds;
}

// What the reference has no number for is no number here; of the rest nothing is said.
inline void expect_nan_where(const std::vector<double>& got, const std::vector<double>& reference) {
  ASSERT_EQ(got.size(), reference.size());
  std::size_t expected = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    expected += std::isnan(reference[i]) ? 1 : 0;
    EXPECT_TRUE(std::isnan(got[i]) || !std::isnan(reference[i])) << "element " << i << " is " << got[i];
  }
  EXPECT_GT(expected, 0U) << "the case shows nothing";
}

class Parity : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    CARAVAN_SKIP_WITHOUT_ISA();
    if (const std::string refusal = cuda_memory::refusal(0); kOnCuda && !refusal.empty()) {
      GTEST_SKIP() << refusal;
    }
    cpu_ =
        make_context({.backend = kOnCuda ? Backend::kCuda : Backend::kCpu, .memory_capacity = std::int64_t{1} << 30});
    if (kOnCuda) {
      ref_ = make_context({.backend = Backend::kRef, .memory_capacity = std::int64_t{1} << 30});
    } else {
      ref_ = cpu_;
      ref_.backend = Backend::kRef;
    }
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
      term = (is_f64() ? kF64Share : 1.0) * (gamma(roundings) * std::abs(term) + flushed);
    }
    return terms;
  }

  // cuBLASLt may round a product to a 16-bit result before it adds to it (ops/linear.h).
  static void add_rounding_of(Bound& error, DType result, const std::vector<double>& product, bool adds) {
    if (!kOnCuda || !adds || size_of(result) != 2) {
      return;
    }
    const double unit = result == DType::kF16 ? 0x1p-11 : kUbf16;
    for (std::size_t i = 0; i < error.size(); ++i) {
      error[i] += unit * std::abs(product[i]) + (result == DType::kF16 ? 0x1p-25 : 0);
    }
  }

  // The op was dispatched once, to the right implementation; or not at all when there was no work.
  void expect_served(const std::string& op, bool work) {
    expect_served_by(op, work, expected_implementation(op, GetParam(), cpu_.isa));
  }

  void expect_served_by(const std::string& op, bool work, const char* implementation) {
    if (!work) {
      EXPECT_TRUE(choices_.empty()) << op << " dispatched without work";
    } else if (choices_.size() != 1) {
      ADD_FAILURE() << op << " dispatched " << choices_.size() << " times";
    } else {
      EXPECT_EQ(choices_[0].op, op);
      if (implementation == nullptr) {
        EXPECT_NE(choices_[0].implementation, "ref");
      } else {
        EXPECT_EQ(choices_[0].implementation, implementation);
      }
      served_ = choices_[0].implementation;
    }
    choices_.clear();
  }

  // Which kernels of attention a case gets: by pairs of bf16, whose weights and scores' gradients are bf16 too.
  bool by_pairs(const AttentionCase& c) const {
    if (kOnCuda) {
      return size_of(GetParam()) == 2 && served_ != "tiles";
    }
    return GetParam() == DType::kBF16 && (cpu_.isa >= Isa::kAvx512Bf16 || cpu_.emulate_bf16_pairs) &&
           c.heads.head_dim % 2 == 0;
  }
  const char* attention_kernels(const AttentionCase& c, const char* op) const {
    return !kOnCuda && by_pairs(c) ? "simd:pairs" : expected_implementation(op, GetParam(), cpu_.isa);
  }
  // bf16 by products of pairs runs on every machine, where it has to be by emulation.
  void with_and_without_pairs(const std::function<void()>& body) {
    body();
    if (!kOnCuda && GetParam() == DType::kBF16 && cpu_.isa < Isa::kAvx512Bf16) {
      cpu_.emulate_bf16_pairs = true;
      SCOPED_TRACE("emulated pairs");
      body();
      cpu_.emulate_bf16_pairs = false;
    }
  }

  Context cpu_, ref_;
  std::vector<Choice> choices_;
  std::string served_;  // by which implementation the last op was
};

}  // namespace caravan::ops::testing

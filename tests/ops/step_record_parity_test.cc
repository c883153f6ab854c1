// The record of a training step on every backend: what its sums decide, and that AdamW follows it to the bit.
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "caravan/ops/step_record.h"
#include "caravan/tensor/copy.h"
#include "tests/ops/grad_runs.h"
#include "tests/ops/parity.h"

namespace caravan::ops::testing {
namespace {

using Doubles = std::vector<double>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class StepRecord : public Parity {};

struct Sums {
  double loss_sum = 6.0;
  double squares = 2500.0;
  double has_targets = 1.0;
  double steps = 4.0;
  double halted = 0.0;
};

Tensor record_of(Context& ctx, const Sums& sums, double lr = 0.01) {
  Doubles values(kStepFields, -1.0);
  values[kLr] = lr;
  values[kHasTargets] = sums.has_targets;
  values[kLossSum] = sums.loss_sum;
  values[kSquares] = sums.squares;
  values[kSteps] = sums.steps;
  values[kHalted] = sums.halted;
  return from_doubles(ctx, DType::kF64, {kStepFields}, values);
}

Doubles decided(Context& ctx, const Sums& sums, const StepRule& rule) {
  const Tensor record = record_of(ctx, sums);
  decide_step(ctx, record, rule);
  return to_doubles(record);
}

constexpr StepRule kRule{.loss_factor = 0.5, .loss_scale = 4.0, .max_norm = 5.0, .beta1 = 0.9, .beta2 = 0.95};

TEST_P(StepRecord, AFiniteStepIsAppliedWithTheFactorsOfItsSums) {
  for (Context* ctx : {&cpu_, &ref_}) {
    const Doubles record = decided(*ctx, {}, kRule);
    EXPECT_EQ(record[kLr], 0.01);
    EXPECT_EQ(record[kLoss], 3.0);
    EXPECT_EQ(record[kGradNorm], 12.5);
    EXPECT_EQ(record[kApplied], 1.0);
    EXPECT_EQ(record[kSteps], 5.0);
    EXPECT_EQ(record[kHalted], 0.0);
    // pow may err by two units in the last place on a device.
    EXPECT_DOUBLE_EQ(record[kGradientScale], 5.0 / (12.5 + 1e-6) / 4.0);
    EXPECT_NEAR(record[kCorrection1], 1 - std::pow(0.9, 5), 0x1p-51);
    EXPECT_NEAR(record[kRootCorrection], std::sqrt(1 - std::pow(0.95, 5)), 0x1p-51);
    StepRule wide = kRule;
    wide.max_norm = 100.0;
    EXPECT_EQ(decided(*ctx, {}, wide)[kGradientScale], 0.25) << "a norm below the most";
    wide.max_norm = 0.0;
    EXPECT_EQ(decided(*ctx, {}, wide)[kGradientScale], 0.25) << "no clipping";
  }
}

TEST_P(StepRecord, AStepThatIsNotFiniteIsNotAppliedAndHaltsWhereAsked) {
  for (Context* ctx : {&cpu_, &ref_}) {
    for (const double bad : {kNan, kInfinity, -kInfinity}) {
      for (const bool of_loss : {true, false}) {
        Sums sums;
        (of_loss ? sums.loss_sum : sums.squares) = bad;
        const Doubles halted = decided(*ctx, sums, kRule);
        EXPECT_EQ(halted[kApplied], 0.0) << bad;
        EXPECT_EQ(halted[kSteps], 4.0);
        EXPECT_EQ(halted[kHalted], 1.0);
        StepRule skipping = kRule;
        skipping.halts = false;
        const Doubles skipped = decided(*ctx, sums, skipping);
        EXPECT_EQ(skipped[kApplied], 0.0);
        EXPECT_EQ(skipped[kSteps], 4.0);
        EXPECT_EQ(skipped[kHalted], 0.0);
      }
    }
    Sums after;
    after.halted = 1.0;
    const Doubles still = decided(*ctx, after, kRule);
    EXPECT_EQ(still[kApplied], 0.0) << "finite, after one that was not";
    EXPECT_EQ(still[kSteps], 4.0);
    EXPECT_EQ(still[kHalted], 1.0);
    EXPECT_EQ(still[kLoss], 3.0);
  }
}

TEST_P(StepRecord, WithoutTargetsNothingMoves) {
  for (Context* ctx : {&cpu_, &ref_}) {
    Sums sums;
    sums.has_targets = 0.0;
    const Doubles record = decided(*ctx, sums, kRule);
    EXPECT_EQ(record[kApplied], 0.0);
    EXPECT_EQ(record[kSteps], 4.0);
    EXPECT_EQ(record[kHalted], 0.0);
  }
}

// Settings made from a record's factors give the bits that the record gives; one that is not applied leaves all.
TEST_P(StepRecord, AdamWFollowsTheRecord) {
  if (size_of(GetParam()) < 4) {
    return;  // masters are f32 or f64
  }
  for (const OptimizerCase& c : kOptimizerCases) {
    SCOPED_TRACE(std::to_string(c.count) + " elements, step " + std::to_string(c.step));
    for (Context* ctx : {&cpu_, &ref_}) {
      AdamW settings = settings_of(c);
      Sums sums;
      sums.steps = static_cast<double>(settings.step) - 1;
      const Tensor record = record_of(*ctx, sums, settings.lr);
      StepRule rule = kRule;
      rule.beta1 = settings.beta1;
      rule.beta2 = settings.beta2;
      decide_step(*ctx, record, rule);
      settings.gradient_scale = to_doubles(record)[kGradientScale];
      choices_.clear();
      const auto moved = [&](const Tensor* by) {
        const OptimizerInputs inputs(GetParam(), c);
        const Tensor master = from_doubles(*ctx, GetParam(), {c.count}, inputs.master);
        const Tensor m = from_doubles(*ctx, GetParam(), {c.count}, inputs.m);
        const Tensor v = from_doubles(*ctx, GetParam(), {c.count}, inputs.v);
        const Tensor gradient = from_doubles(*ctx, GetParam(), {c.count}, inputs.gradient);
        if (by == nullptr) {
          adamw(*ctx, master, m, v, gradient, settings);
        } else {
          adamw(*ctx, master, m, v, gradient,
                {.beta1 = settings.beta1,
                 .beta2 = settings.beta2,
                 .eps = settings.eps,
                 .weight_decay = settings.weight_decay},
                *by);
        }
        return std::array<Doubles, 3>{to_doubles(master), to_doubles(m), to_doubles(v)};
      };
      const std::array<Doubles, 3> by_record = moved(&record);
      const std::array<Doubles, 3> by_settings = moved(nullptr);
      for (std::size_t i = 0; i < by_record.size(); ++i) {
        for (std::size_t j = 0; j < by_record[i].size(); ++j) {
          // The corrections' powers come from two libraries on a GPU.
          EXPECT_NEAR(by_record[i][j], by_settings[i][j],
                      kOnCuda ? 2 * kU * (std::abs(by_settings[i][j]) + settings.lr) : 0.0);
        }
      }
      Sums nothing;
      nothing.squares = kNan;
      const Tensor refused = record_of(*ctx, nothing);
      decide_step(*ctx, refused, rule);
      const OptimizerInputs inputs(GetParam(), c);
      EXPECT_EQ(moved(&refused), (std::array<Doubles, 3>{inputs.master, inputs.m, inputs.v}));
    }
  }
}

TEST_P(StepRecord, AddSumIsTakenInF64AndAddedTo) {
  for (const std::int64_t count : {0, 1, 5, 1000, 70001}) {
    for (Context* ctx : {&cpu_, &ref_}) {
      const Maker make{*ctx, GetParam(), GetParam()};
      const Tensor x = make.vector("x", count, 2);
      const Tensor sum = from_doubles(*ctx, DType::kF64, {1}, {5});
      add_sum(*ctx, sum, x);
      long double exact = 5;
      double magnitude = 5;
      for (const double value : to_doubles(x)) {
        exact += value;
        magnitude += std::abs(value);
      }
      EXPECT_NEAR(to_doubles(sum)[0], static_cast<double>(exact),
                  (static_cast<double>(count) + 2) * 0x1p-53 * magnitude);
      const double first = to_doubles(sum)[0];
      copy_from_host(sum, std::as_bytes(std::span<const double>(std::array{5.0})));
      add_sum(*ctx, sum, x);
      EXPECT_EQ(to_doubles(sum)[0], first) << "the same bits every time";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, StepRecord, ::testing::ValuesIn(kFloats),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace caravan::ops::testing

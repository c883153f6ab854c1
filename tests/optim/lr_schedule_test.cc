#include "caravan/optim/lr_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "caravan/base/error.h"

namespace caravan::optim {
namespace {

std::vector<double> factors(const LrSchedule& schedule) {
  std::vector<double> result;
  for (std::int64_t step = 0; step < schedule.total_steps; ++step) {
    result.push_back(lr_factor(schedule, step));
  }
  return result;
}

// torchtitan's tests/unit_tests/test_lr_scheduler.py: 10 steps, 2 of warm-up, decay over the rest.
TEST(LrSchedule, IsTorchtitansLinearDecay) {
  const LrSchedule schedule{.total_steps = 10, .warmup_steps = 2};
  const std::vector<double> expected = {0.5, 1.0, 1.0, 7.0 / 8, 6.0 / 8, 5.0 / 8, 4.0 / 8, 3.0 / 8, 2.0 / 8, 1.0 / 8};
  const std::vector<double> found = factors(schedule);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_DOUBLE_EQ(found[i], expected[i]) << i;
  }
}

TEST(LrSchedule, HoldsBeforeItDecays) {
  const LrSchedule schedule{.total_steps = 10, .warmup_steps = 2, .decay_ratio = 0.5};
  const std::vector<double> expected = {0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2};
  const std::vector<double> found = factors(schedule);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_DOUBLE_EQ(found[i], expected[i]) << i;
  }
}

TEST(LrSchedule, DecaysByRootAndCosineOntoTheMinimum) {
  LrSchedule schedule{.total_steps = 10, .warmup_steps = 2, .min_factor = 0.1};
  schedule.decay = Decay::kSqrt;
  EXPECT_DOUBLE_EQ(lr_factor(schedule, 5), 0.1 + 0.9 * (1.0 - std::sqrt(3.0 / 8.0)));
  schedule.decay = Decay::kCosine;
  EXPECT_DOUBLE_EQ(lr_factor(schedule, 5), 0.1 + 0.9 * 0.5 * (1.0 + std::cos(M_PI * 3.0 / 8.0)));
}

TEST(LrSchedule, SurvivesMoreWarmUpThanSteps) {
  const LrSchedule schedule{.total_steps = 3, .warmup_steps = 10};
  EXPECT_DOUBLE_EQ(lr_factor(schedule, 0), 1.0 / 3.0);
  EXPECT_DOUBLE_EQ(lr_factor(schedule, 2), 1.0);
  EXPECT_DOUBLE_EQ(lr_factor(schedule, 3), 1.0);
}

TEST(LrSchedule, RefusesImpossibleNumbers) {
  EXPECT_THROW(validate({.total_steps = 0}), ConfigError);
  EXPECT_THROW(validate({.warmup_steps = -1}), ConfigError);
  EXPECT_THROW(validate({.decay_ratio = 1.5}), ConfigError);
  EXPECT_THROW(validate({.min_factor = -0.1}), ConfigError);
  EXPECT_NO_THROW(validate({}));
}

}  // namespace
}  // namespace caravan::optim

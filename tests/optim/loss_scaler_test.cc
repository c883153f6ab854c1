#include "caravan/optim/loss_scaler.h"

#include <gtest/gtest.h>

namespace caravan::optim {
namespace {

TEST(LossScaler, HalvesAtOnceAndDoublesAfterALongWay) {
  LossScaler scaler{.scale = 8.0, .growth_interval = 3};
  scaler.update(true);
  scaler.update(true);
  EXPECT_EQ(scaler.scale, 8.0);
  scaler.update(true);
  EXPECT_EQ(scaler.scale, 16.0);
  EXPECT_EQ(scaler.good_steps, 0);
  scaler.update(true);
  scaler.update(true);
  scaler.update(false);
  EXPECT_EQ(scaler.scale, 8.0);
  scaler.update(true);
  scaler.update(true);
  EXPECT_EQ(scaler.scale, 8.0) << "counted anew";
  scaler.update(true);
  EXPECT_EQ(scaler.scale, 16.0);
}

TEST(LossScaler, GrowsNoFurtherThanFloat16Needs) {
  LossScaler scaler{.scale = 16777216.0, .growth_interval = 1};
  scaler.update(true);
  EXPECT_EQ(scaler.scale, 16777216.0);
}

}  // namespace
}  // namespace caravan::optim

#include "caravan/base/version.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

TEST(Version, IsTheProjects) {
  EXPECT_STREQ(version(), CARAVAN_VERSION);
}

}  // namespace
}  // namespace caravan

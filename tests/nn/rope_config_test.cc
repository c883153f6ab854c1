#include "caravan/nn/rope_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "caravan/base/error.h"

namespace caravan::nn {
namespace {

// Frequencies against transformers stand in tests/model_io/golden_test.cc; here are the rules around them.

RopeConfig scaled(RopeKind kind, double factor) {
  RopeConfig config;
  config.kind = kind;
  config.factor = factor;
  config.factor_given = true;
  config.max_position_embeddings = 64;
  config.short_factor = {1.0, 1.5};
  config.long_factor = {2.0, 4.0};
  return config;
}

TEST(RopeConfig, NamesAreConfigJsons) {
  for (const char* name : {"default", "linear", "dynamic", "yarn", "longrope", "llama3"}) {
    ASSERT_TRUE(parse_rope_kind(name).has_value()) << name;
    EXPECT_STREQ(to_string(*parse_rope_kind(name)), name);
  }
  EXPECT_FALSE(parse_rope_kind("mrope").has_value());
}

TEST(RopeConfig, DynamicStretchesOnlyBeyondTheTrainedLength) {
  const RopeConfig config = scaled(RopeKind::kDynamic, 2.0);
  EXPECT_EQ(rope_frequencies(config, 4, 10), rope_frequencies(config, 4, 64));
  EXPECT_NE(rope_frequencies(config, 4, 65), rope_frequencies(config, 4, 64));
  // theta' = theta (2 * 128 / 64 - 1)^(4 / 2) = 9 theta, whose first frequency above one is (9 theta)^(-1/2).
  EXPECT_NEAR(rope_frequencies(config, 4, 128)[1], 1.0 / std::sqrt(9.0 * 10000.0), 1e-9);
}

TEST(RopeConfig, LongRopeChangesListsJustBeyondTheTrainedLength) {
  const RopeConfig config = scaled(RopeKind::kLongRope, 2.0);
  EXPECT_NEAR(rope_frequencies(config, 4, 64)[1], 0.01 / 1.5, 1e-8);
  EXPECT_NEAR(rope_frequencies(config, 4, 65)[1], 0.01 / 4.0, 1e-8);
}

TEST(RopeConfig, ScalesAttentionForYarnAndLongRopeOnly) {
  EXPECT_EQ(rope_attention_scaling(scaled(RopeKind::kDefault, 4.0)), 1.0);
  EXPECT_EQ(rope_attention_scaling(scaled(RopeKind::kLinear, 4.0)), 1.0);
  EXPECT_EQ(rope_attention_scaling(scaled(RopeKind::kLlama3, 4.0)), 1.0);
  EXPECT_DOUBLE_EQ(rope_attention_scaling(scaled(RopeKind::kYarn, 4.0)), 0.1 * std::log(4.0) + 1.0);
  EXPECT_DOUBLE_EQ(rope_attention_scaling(scaled(RopeKind::kLongRope, 4.0)),
                   std::sqrt(1.0 + std::log(4.0) / std::log(64.0)));
  RopeConfig given = scaled(RopeKind::kYarn, 4.0);
  given.attention_factor = 1.5;
  EXPECT_EQ(rope_attention_scaling(given), 1.5);
}

TEST(RopeConfig, DerivesAnAbsentYarnFactorFromTheLengths) {
  RopeConfig config = scaled(RopeKind::kYarn, 1.0);
  config.factor_given = false;
  config.original_max_position_embeddings = 16;
  EXPECT_DOUBLE_EQ(rope_attention_scaling(config), 0.1 * std::log(4.0) + 1.0);
}

TEST(RopeConfig, KnowsHowLongASequenceMayBe) {
  EXPECT_EQ(max_sequence_length(scaled(RopeKind::kDefault, 4.0)), 64);
  EXPECT_EQ(max_sequence_length(scaled(RopeKind::kLinear, 4.0)), 256);
  EXPECT_GT(max_sequence_length(scaled(RopeKind::kDynamic, 4.0)), 1'000'000'000);
  RopeConfig llama3 = scaled(RopeKind::kLlama3, 8.0);
  EXPECT_EQ(max_sequence_length(llama3), 512);
  llama3.original_max_position_embeddings = 16;  // M counts the stretching already
  EXPECT_EQ(max_sequence_length(llama3), 64);
}

TEST(RopeConfig, RefusesContradictions) {
  const auto refused = [](RopeConfig config, std::int64_t head_dim = 4) {
    try {
      validate(config, head_dim);
      return false;
    } catch (const ConfigError&) {
      return true;
    }
  };
  EXPECT_FALSE(refused(scaled(RopeKind::kYarn, 4.0)));
  EXPECT_TRUE(refused(scaled(RopeKind::kLinear, 0.0)));
  EXPECT_TRUE(refused(scaled(RopeKind::kDynamic, 0.5)));
  EXPECT_TRUE(refused(scaled(RopeKind::kDynamic, 2.0), 2));
  EXPECT_TRUE(refused(scaled(RopeKind::kLongRope, 2.0), 8));
  RopeConfig bands = scaled(RopeKind::kLlama3, 8.0);
  bands.low_freq_factor = 8.0;
  EXPECT_TRUE(refused(bands));
  RopeConfig turns = scaled(RopeKind::kYarn, 4.0);
  turns.beta_fast = 0.5;
  EXPECT_TRUE(refused(turns));
  RopeConfig infinite;
  infinite.theta = INFINITY;
  EXPECT_TRUE(refused(infinite));
}

}  // namespace
}  // namespace caravan::nn

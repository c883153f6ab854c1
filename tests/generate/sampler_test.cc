#include "caravan/generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "caravan/base/error.h"
#include "tests/support/scratch.h"

namespace caravan::generate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

SamplingOptions sampling(double temperature, std::int64_t top_k, double top_p, std::uint64_t seed = 7) {
  return {.do_sample = true, .temperature = temperature, .top_k = top_k, .top_p = top_p, .seed = seed};
}

std::vector<int> counts_of(const std::vector<float>& logits, const SamplingOptions& options, int draws,
                           std::uint64_t stream = 0) {
  std::vector<int> counts(logits.size(), 0);
  for (int i = 0; i < draws; ++i) {
    ++counts[static_cast<std::size_t>(sample(logits, options, stream, i))];
  }
  return counts;
}

// What can be drawn at all: tokens of at least 1% in 4,000 draws, missed with a chance of 1e-17 each.
std::set<int> drawn_of(const std::vector<float>& logits, const SamplingOptions& options) {
  const std::vector<int> counts = counts_of(logits, options, 4000);
  std::set<int> drawn;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) {
      drawn.insert(static_cast<int>(i));
    }
  }
  return drawn;
}

std::vector<float> logs_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) {
    logits.push_back(static_cast<float>(std::log(p)));
  }
  return logits;
}

TEST(Sampler, GreedyTakesTheLowestIdOfEquals) {
  EXPECT_EQ(sample(std::vector<float>{1, 3, 2, 3}, {}, 0, 0), 1);
  EXPECT_EQ(sample(std::vector<float>{-kInfinity, -5, -kInfinity}, {}, 0, 0), 1);
  EXPECT_EQ(sample(std::vector<float>{0, kInfinity, kInfinity}, {}, 0, 0), 1);
  EXPECT_EQ(sample(std::vector<float>{-0.0F, 0.0F}, {}, 0, 0), 0);
}

// Pearson's statistic of n draws over k tokens has mean k - 1 and variance 2 (k - 1) and a little; six deviations above
// the mean are beyond any chance, and a probability that is off by 5% of itself moves it by 0.05^2 n = 500.
TEST(Sampler, DrawsTheSoftmaxOfLogitsOverTemperature) {
  const std::vector<float> logits = {0.5F, -1.0F, 2.0F, 0.0F, 1.25F, -2.0F, 0.75F, 1.0F};
  constexpr int kDraws = 200'000;
  for (const double temperature : {0.5, 1.0, 1.7}) {
    double total = 0.0;
    for (const float logit : logits) {
      total += std::exp(logit / temperature);
    }
    const std::vector<int> counts = counts_of(logits, sampling(temperature, 0, 1.0), kDraws);
    double statistic = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double expected = kDraws * std::exp(logits[i] / temperature) / total;
      statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    const double freedom = static_cast<double>(logits.size()) - 1.0;
    EXPECT_LT(statistic, freedom + 6.0 * std::sqrt(2.0 * freedom)) << temperature;
  }
}

TEST(Sampler, DrawsWhatIsLeftInProportion) {
  const std::vector<int> counts = counts_of(logs_of({0.4, 0.1, 0.2, 0.3}), sampling(1.0, 3, 0.7), 100'000);
  // top_k leaves 0.4, 0.2, 0.3 of 0.9; of those 0.2 / 0.9 = 0.22 is at most 1 - 0.7 and goes.
  EXPECT_EQ(counts[1] + counts[2], 0);
  const double deviation = std::sqrt(100'000 * (4.0 / 7.0) * (3.0 / 7.0));
  EXPECT_NEAR(counts[0], 100'000 * 4.0 / 7.0, 6.0 * deviation);
}

TEST(Sampler, TopKKeepsAllEqualsOfTheKth) {
  const std::vector<float> logits = {1, 2, 2, 3, 0, 2};
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 1, 1.0)), (std::set<int>{3}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 2, 1.0)), (std::set<int>{1, 2, 3, 5}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 4, 1.0)), (std::set<int>{1, 2, 3, 5}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 5, 1.0)), (std::set<int>{0, 1, 2, 3, 5}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 1.0)).size(), 6U);
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 1000, 1.0)).size(), 6U);
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  const std::vector<float> logits = logs_of({0.15, 0.5, 0.05, 0.3});
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.0)), (std::set<int>{1}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.45)), (std::set<int>{1}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.55)), (std::set<int>{1, 3}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.79)), (std::set<int>{1, 3}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.81)), (std::set<int>{0, 1, 3}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 1.0)).size(), 4U);
}

// Four equals: the lower ids go first while what goes sums to at most 1 - top_p, 0.25 each.
TEST(Sampler, TopPCutsThroughEqualsAsAStableSortDoes) {
  const std::vector<float> logits = {1, 1, 1, 1};
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.9)), (std::set<int>{0, 1, 2, 3}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.75)), (std::set<int>{1, 2, 3}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.5)), (std::set<int>{2, 3}));
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.1)), (std::set<int>{3}));
}

TEST(Sampler, TemperatureComesBeforeTopP) {
  // At temperature 2 the probabilities are 0.59, 0.28, 0.13 rather than 0.79, 0.18, 0.04.
  const std::vector<float> logits = {3.0F, 1.5F, 0.0F};
  EXPECT_EQ(drawn_of(logits, sampling(1.0, 0, 0.75)), (std::set<int>{0}));
  EXPECT_EQ(drawn_of(logits, sampling(2.0, 0, 0.75)), (std::set<int>{0, 1}));
}

TEST(Sampler, TheDrawHangsOnSeedStreamAndPositionAlone) {
  const std::vector<float> logits(1000, 0.0F);
  const SamplingOptions options = sampling(1.0, 0, 1.0);
  const auto draws = [&](const SamplingOptions& how, std::uint64_t stream) {
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 50; ++i) {
      ids.push_back(sample(logits, how, stream, i));
    }
    return ids;
  };
  EXPECT_EQ(draws(options, 3), draws(options, 3));
  EXPECT_NE(draws(options, 3), draws(options, 4));
  EXPECT_NE(draws(options, 3), draws(sampling(1.0, 0, 1.0, 8), 3));
  const std::vector<std::int32_t> ids = draws(options, 3);
  EXPECT_GT(std::set<std::int32_t>(ids.begin(), ids.end()).size(), 40U);
}

TEST(Sampler, ExtremesGiveATokenAndNoNaN) {
  EXPECT_EQ(drawn_of({1e38F, -1e38F, 0}, sampling(1e-300, 0, 0.9)), (std::set<int>{0}));
  EXPECT_EQ(drawn_of({0, kInfinity, kInfinity}, sampling(1.0, 0, 1.0)), (std::set<int>{1, 2}));
  EXPECT_EQ(drawn_of({-kInfinity, 0, -kInfinity}, sampling(1.0, 3, 0.99)), (std::set<int>{1}));
  EXPECT_EQ(drawn_of({0.0F}, sampling(1.0, 50, 0.5)), (std::set<int>{0}));
}

TEST(Sampler, RefusesNumbersThatMeanNothing) {
  for (const SamplingOptions& options : {SamplingOptions{}, sampling(1.0, 2, 0.9)}) {
    EXPECT_THROW(sample(std::vector<float>{1, NAN, 2}, options, 0, 0), InputError);
    EXPECT_THROW(sample(std::vector<float>{-kInfinity, -kInfinity}, options, 0, 0), InputError);
    EXPECT_THROW(sample({}, options, 0, 0), InputError);
  }
  const auto complaint = [](const SamplingOptions& options) {
    return test::message_of<ConfigError>([&] { validate(options); });
  };
  for (const double temperature : {0.0, -1.0, static_cast<double>(NAN), HUGE_VAL}) {
    EXPECT_TRUE(complaint(sampling(temperature, 0, 1.0)).starts_with("temperature must be"));
  }
  EXPECT_TRUE(complaint(sampling(1.0, -1, 1.0)).starts_with("top_k must be"));
  for (const double top_p : {-0.1, 1.1, static_cast<double>(NAN)}) {
    EXPECT_TRUE(complaint(sampling(1.0, 0, top_p)).starts_with("top_p must be"));
  }
  // Files of greedy models have such numbers.
  EXPECT_EQ(complaint({.do_sample = false, .temperature = 0.0}), "");
}

}  // namespace
}  // namespace caravan::generate

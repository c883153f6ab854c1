// Ids drawn on the device against those that the host draws: the same, whatever the options.
#include "caravan/generate/device_sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>

#include "caravan/base/error.h"
#include "caravan/base/philox.h"
#include "caravan/generate/decoder.h"
#include "caravan/generate/generate.h"
#include "caravan/tensor/copy.h"
#include "tests/generate/tiny_model.h"
#include "tests/support/device.h"

namespace caravan::generate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Normal logits; `steps` above 0 makes them multiples of its inverse, so that many are equal.
std::vector<float> random_logits(std::int64_t vocab, double deviation, double steps, std::uint64_t seed) {
  const RandomStream stream(seed, "logits");
  std::vector<float> logits;
  for (std::int64_t i = 0; i < vocab; ++i) {
    double value = deviation * stream.normal(static_cast<std::uint64_t>(i));
    value = steps > 0 ? std::round(value * steps) / steps : value;
    logits.push_back(static_cast<float>(value));
  }
  return logits;
}

std::vector<SamplingOptions> all_options() {
  std::vector<SamplingOptions> result{{.do_sample = false}};
  for (const double temperature : {0.05, 0.8, 1.0, 3.0}) {
    for (const std::int64_t top_k : {0, 1, 5, 50, 100'000}) {
      for (const double top_p : {0.0, 0.1, 0.5, 0.95, 1.0}) {
        result.push_back({true, temperature, top_k, top_p, 7});
      }
    }
  }
  return result;
}

class DeviceSamplingTest : public testing::Test {
 protected:
  ops::Context ctx_ = context_of(test::fast_backend());

  // Draws all options in one call, a row each.
  std::vector<double> drawn(const std::vector<float>& logits, const std::vector<SamplingOptions>& options,
                            std::int64_t position) {
    const auto rows = static_cast<std::int64_t>(options.size());
    const auto vocab = static_cast<std::int64_t>(logits.size());
    std::vector<float> all;
    std::vector<std::uint64_t> streams;
    for (std::int64_t i = 0; i < rows; ++i) {
      all.insert(all.end(), logits.begin(), logits.end());
      streams.push_back(static_cast<std::uint64_t>(3 * i));
    }
    DeviceSampling drawing(ctx_, rows);
    drawing.set(options, streams, std::vector<std::int64_t>(options.size(), position));
    const Tensor ids = ctx_.allocate(DType::kI32, {rows});
    drawing.draw(ctx_, ids, to_device(*ctx_.allocator, all, {rows, vocab}));
    return to_doubles(ids);
  }

  void expect_as_the_host(const std::vector<float>& logits, std::int64_t positions) {
    const std::vector<SamplingOptions> options = all_options();
    for (std::int64_t position = 0; position < positions; ++position) {
      const std::vector<double> ids = drawn(logits, options, position);
      for (std::size_t i = 0; i < options.size(); ++i) {
        EXPECT_EQ(ids[i], sample(logits, options[i], 3 * i, position))
            << "temperature " << options[i].temperature << " top_k " << options[i].top_k << " top_p "
            << options[i].top_p << " position " << position << " of " << logits.size();
      }
    }
  }
};

TEST_F(DeviceSamplingTest, DrawsWhatTheHostDraws) {
  for (const std::int64_t vocab : {1, 2, 7, 131, 1003}) {
    expect_as_the_host(random_logits(vocab, 2.0, 0.0, 5), 4);
  }
}

TEST_F(DeviceSamplingTest, EqualLogitsGoInTheOrderOfTheirIds) {
  expect_as_the_host(random_logits(517, 2.0, 2.0, 6), 4);
  expect_as_the_host(std::vector<float>(40, 0.25F), 4);
  std::vector<float> signs = random_logits(64, 1.0, 1.0, 7);
  for (std::size_t i = 0; i < signs.size(); i += 2) {
    signs[i] = signs[i] == 0.0F ? -0.0F : signs[i];
  }
  expect_as_the_host(signs, 4);
}

TEST_F(DeviceSamplingTest, LogitsOfManySizesAndMasks) {
  std::vector<float> logits = random_logits(200, 30.0, 0.0, 8);
  expect_as_the_host(logits, 2);
  for (std::size_t i = 0; i < logits.size(); i += 3) {
    logits[i] = -kInfinity;
  }
  expect_as_the_host(logits, 2);
  logits[50] = kInfinity;
  logits[77] = kInfinity;
  expect_as_the_host(logits, 2);
}

TEST_F(DeviceSamplingTest, TellsOfRowsWithoutANumberToDraw) {
  std::vector<float> logits = random_logits(100, 1.0, 0.0, 9);
  logits[99] = std::numeric_limits<float>::quiet_NaN();
  for (const double id : drawn(logits, all_options(), 0)) {
    EXPECT_EQ(id, -1.0);
  }
  for (const double id : drawn(std::vector<float>(100, -kInfinity), all_options(), 0)) {
    EXPECT_EQ(id, -1.0);
  }
  const Tensor row = to_device(*ctx_.allocator, logits, {1, 100});
  EXPECT_THROW(sample_row(ctx_, row, {true, 1.0, 0, 1.0, 0}, 0, 0), InputError);
}

// A draw's frequencies are the distribution's: of n draws each count within five deviations.
TEST_F(DeviceSamplingTest, DrawsByTheDistribution) {
  const std::vector<float> logits = random_logits(12, 1.0, 0.0, 10);
  const SamplingOptions options{true, 1.3, 9, 0.9, 11};
  constexpr int kRows = 64;
  constexpr int kRounds = 64;
  std::vector<int> counts(logits.size(), 0);
  DeviceSampling drawing(ctx_, kRows);
  std::vector<std::uint64_t> streams;
  std::vector<float> all;
  for (std::uint64_t i = 0; i < kRows; ++i) {
    streams.push_back(i);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  const Tensor rows = to_device(*ctx_.allocator, all, {kRows, static_cast<std::int64_t>(logits.size())});
  const Tensor ids = ctx_.allocate(DType::kI32, {kRows});
  for (int round = 0; round < kRounds; ++round) {
    drawing.set(std::vector<SamplingOptions>(kRows, options), streams, std::vector<std::int64_t>(kRows, round));
    drawing.draw(ctx_, ids, rows);
    for (const double id : to_doubles(ids)) {
      ++counts.at(static_cast<std::size_t>(id));
    }
  }
  constexpr double kDraws = kRows * kRounds;
  double seen = 0;
  for (const TokenProbability& one : distribution(logits, options)) {
    const double count = counts[static_cast<std::size_t>(one.id)];
    EXPECT_NEAR(count, kDraws * one.probability, 5 * std::sqrt(kDraws * one.probability * (1 - one.probability)));
    seen += count;
  }
  EXPECT_EQ(seen, kDraws) << "an id was drawn that may not be";
}

// On a GPU steps run ahead with ids drawn there; elsewhere this compares the host with itself.
TEST_F(DeviceSamplingTest, GeneratedIdsAreThoseThatTheHostDrawsStepByStep) {
  const TinyModel model = tiny_model(ctx_, tiny_config(nn::RopeKind::kDefault), DType::kF32);
  for (const SamplingOptions& options :
       {SamplingOptions{true, 0.9, 20, 0.9, 3}, SamplingOptions{true, 1.5, 0, 1.0, 4}, SamplingOptions{}}) {
    Request request;
    request.prompt = random_ids(6, 61);
    request.max_new_tokens = 12;
    request.sampling = options;
    const Result found = generate(ctx_, *model.llama, {request}).front();
    Decoder decoder(ctx_, *model.llama, {32});
    std::vector<Tensor> logits = decoder.extend({request.prompt});
    std::vector<std::int32_t> expected;
    for (std::int64_t position = 0; position < request.max_new_tokens; ++position) {
      expected.push_back(sample(to_floats(logits.front()), options, 0, position));
      logits = decoder.extend({{expected.back()}});
    }
    EXPECT_EQ(found.ids, expected);
  }
}

}  // namespace
}  // namespace caravan::generate

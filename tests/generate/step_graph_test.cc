#include "caravan/generate/step_graph.h"

#include <gtest/gtest.h>

#include "caravan/base/error.h"
#include "caravan/generate/decoder.h"
#include "tests/generate/tiny_model.h"

namespace caravan::generate {
namespace {

using Ids = std::vector<std::int32_t>;

// The same sums in another order, f64: see decoder_test.cc.
constexpr double kF64Bound = 1e-11;

std::int32_t largest(const std::vector<double>& logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

TEST(StepGraph, RecordedStepsGiveTheLogitsOfAWholePass) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(nn::RopeKind::kLlama3), DType::kF64);
  const Ids ids = random_ids(24, 61);
  Decoder decoder(ctx, *model.llama, {24}, Decoder::Recording::kAlways);
  decoder.extend({Ids(ids.begin(), ids.begin() + 5)});
  for (std::size_t length = 6; length <= ids.size(); ++length) {
    const std::vector<Tensor> logits = decoder.extend({{ids[length - 1]}});
    const Ids whole(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_LE(relative_error(to_doubles(logits.at(0)), uncached_logits(ctx, *model.llama, whole)), kF64Bound) << length;
  }
}

TEST(StepGraph, GoesOnAfterTheSequenceWasCutAndAfterALongerPass) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(nn::RopeKind::kDefault), DType::kF64);
  Decoder decoder(ctx, *model.llama, {30}, Decoder::Recording::kAlways);
  Ids whole = random_ids(8, 61);
  decoder.extend({whole});
  const auto step = [&](std::int32_t id) {
    whole.push_back(id);
    const std::vector<double> logits = to_doubles(decoder.extend({{id}}).at(0));
    EXPECT_LE(relative_error(logits, uncached_logits(ctx, *model.llama, whole)), kF64Bound) << whole.size();
  };
  step(3);
  step(4);
  decoder.keep(0, 6);
  whole.resize(6);
  step(9);
  step(10);
  const Ids more = random_ids(5, 61, 7);
  whole.insert(whole.end(), more.begin(), more.end());
  decoder.extend({more});
  step(11);
  decoder.reserve({40});
  step(12);
}

TEST(StepGraph, SequencesStepSideBySide) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(nn::RopeKind::kDefault), DType::kF64);
  Decoder decoder(ctx, *model.llama, {20, 12}, Decoder::Recording::kAlways);
  std::vector<Ids> whole = {random_ids(9, 61, 1), random_ids(3, 61, 2)};
  decoder.extend(whole);
  for (std::int32_t id = 20; id < 26; ++id) {
    const std::vector<Tensor> logits = decoder.extend({{id}, {id + 1}});
    whole[0].push_back(id);
    whole[1].push_back(id + 1);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_LE(relative_error(to_doubles(logits.at(i)), uncached_logits(ctx, *model.llama, whole[i])), kF64Bound);
    }
  }
}

TEST(StepGraph, ChoosesTheLargestLogitByItself) {
  ops::Context ctx = context_of(ops::Backend::kRef);
  const TinyModel model = tiny_model(ctx, tiny_config(nn::RopeKind::kDefault), DType::kF64);
  Ids whole = random_ids(7, 61);
  constexpr std::int64_t kSteps = 9;
  Decoder decoder(ctx, *model.llama, {7 + kSteps});
  const std::int32_t first = largest(to_doubles(decoder.extend({whole}).at(0)));
  StepGraph steps(ctx, *model.llama, decoder.cache(), StepGraph::Choice::kGreedy);
  steps.begin({7}, {first});
  steps.step();
  whole.push_back(first);
  for (std::int64_t i = 0; i < kSteps; ++i) {
    if (i + 1 < kSteps) {
      steps.step();  // one ahead of what was seen
    }
    const std::int32_t expected = largest(uncached_logits(ctx, *model.llama, whole));
    EXPECT_EQ(steps.take(), Ids{expected}) << i;
    whole.push_back(expected);
  }
  EXPECT_THROW(steps.step(), ShapeError);  // the cache is full
}

TEST(StepGraph, FrequenciesThatChangeWithTheLengthAreNotRecorded) {
  EXPECT_TRUE(steps_can_be_recorded(tiny_config(nn::RopeKind::kYarn), 1, 40));
  EXPECT_FALSE(steps_can_be_recorded(tiny_config(nn::RopeKind::kDynamic), 1, 40));
  EXPECT_FALSE(steps_can_be_recorded(tiny_config(nn::RopeKind::kLongRope), 1, 40));
  EXPECT_TRUE(steps_can_be_recorded(tiny_config(nn::RopeKind::kLongRope), 13, 40));
}

}  // namespace
}  // namespace caravan::generate

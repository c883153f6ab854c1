#include "caravan/model_io/compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>

#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"
#include "tests/support/scratch.h"

namespace caravan::model_io {
namespace {

struct Named {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

std::filesystem::path write(const std::filesystem::path& path, const std::vector<Named>& tensors) {
  std::vector<checkpoint::TensorPlan> plan;
  for (const Named& one : tensors) {
    plan.push_back({one.name, DType::kF32, one.shape});
  }
  checkpoint::SafetensorsWriter writer(path, plan);
  for (const Named& one : tensors) {
    writer.append(std::as_bytes(std::span(one.values)));
  }
  writer.finish();
  return path;
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Compare, MeasuresErrorAgainstTheSecondFilesScale) {
  const test::ScratchDirectory scratch;
  const auto a = write(scratch.path() / "a", {{"hidden.0.0", {2, 2}, {1.0F, 2.0F, 3.0F, 4.5F}}});
  const auto b = write(scratch.path() / "b", {{"hidden.0.0", {2, 2}, {1.0F, 2.0F, 3.0F, -4.0F}}});
  const Comparison result = compare(a, b, 1e-4);
  ASSERT_EQ(result.tensors.size(), 1U);
  EXPECT_EQ(result.first_difference, 0);
  EXPECT_DOUBLE_EQ(result.tensors[0].max_error, 8.5);
  EXPECT_DOUBLE_EQ(result.tensors[0].relative_error, 8.5 / 4.0);
  EXPECT_EQ(result.tensors[0].where, (std::vector<std::int64_t>{1, 1}));
  EXPECT_DOUBLE_EQ(result.tensors[0].a, 4.5);
  EXPECT_DOUBLE_EQ(result.tensors[0].b, -4.0);
}

TEST(Compare, NamesTheFirstDifferenceInTheOrderOfTheComputation) {
  const test::ScratchDirectory scratch;
  const auto a = write(scratch.path() / "a", {{"logits.0", {1}, {1.0F}},
                                              {"hidden.0.10", {1}, {1.0F}},
                                              {"hidden.0.2", {1}, {1.0F}},
                                              {"hidden.1.0", {1}, {1.0F}},
                                              {"grad.x", {1}, {1.0F}}});
  const auto b = write(scratch.path() / "b", {{"logits.0", {1}, {2.0F}},
                                              {"hidden.0.10", {1}, {2.0F}},
                                              {"hidden.0.2", {1}, {1.0F}},
                                              {"hidden.1.0", {1}, {2.0F}},
                                              {"grad.x", {1}, {2.0F}}});
  const Comparison result = compare(a, b, 1e-4);
  std::vector<std::string> names;
  for (const TensorDifference& one : result.tensors) {
    names.push_back(one.name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"hidden.0.2", "hidden.0.10", "logits.0", "hidden.1.0", "grad.x"}));
  EXPECT_EQ(result.first_difference, 1);
}

TEST(Compare, CountsMissingAndMisshapenTensorsAsDifferences) {
  const test::ScratchDirectory scratch;
  const auto a = write(scratch.path() / "a", {{"x", {2}, {1, 2}}, {"only_a", {1}, {1}}});
  const auto b = write(scratch.path() / "b", {{"x", {2, 1}, {1, 2}}, {"only_b", {1}, {1}}});
  const Comparison result = compare(a, b, 1e9);
  ASSERT_EQ(result.tensors.size(), 3U);
  for (const TensorDifference& one : result.tensors) {
    EXPECT_FALSE(one.within) << one.name;
    EXPECT_FALSE(one.problem.empty()) << one.name;
  }
}

TEST(Compare, LetsNoNanOrInfinityPass) {
  const test::ScratchDirectory scratch;
  const auto with = [&](const char* name, float value) {
    return write(scratch.path() / name, {{"x", {3}, {1.0F, value, 2.0F}}});
  };
  const auto one = with("one", 1.0F);
  const auto nan = with("nan", kNan);
  const auto inf = with("inf", kInf);
  const auto minus_inf = with("minus_inf", -kInf);
  constexpr double kAnything = 1e300;
  EXPECT_EQ(compare(one, nan, kAnything).first_difference, 0);
  EXPECT_EQ(compare(nan, one, kAnything).first_difference, 0);
  EXPECT_EQ(compare(inf, one, kAnything).first_difference, 0);
  EXPECT_EQ(compare(inf, minus_inf, kAnything).first_difference, 0);
  EXPECT_EQ(compare(nan, nan, 0.0).first_difference, -1);
  EXPECT_EQ(compare(inf, inf, 0.0).first_difference, -1);
}

TEST(Compare, SaysWhenThereIsNothingToCompare) {
  const test::ScratchDirectory scratch;
  const auto empty = write(scratch.path() / "empty", {});
  EXPECT_THROW(compare(empty, empty, 1.0), InputError);
  const auto nan = write(scratch.path() / "nan", {{"x", {3}, {kNan, 1.0F, kNan}}});
  EXPECT_EQ(compare(nan, nan, 0.0).tensors[0].both_nan, 2);
}

TEST(Compare, FindsEqualFilesEqual) {
  const test::ScratchDirectory scratch;
  const auto a = write(scratch.path() / "a", {{"x", {3}, {1, 0, 2}}, {"empty", {0, 4}, {}}, {"zero", {1}, {0}}});
  const auto b = write(scratch.path() / "b", {{"x", {3}, {1, 0, 2}}, {"empty", {0, 4}, {}}, {"zero", {1}, {0}}});
  EXPECT_EQ(compare(a, b, 0.0).first_difference, -1);
  const auto c = write(scratch.path() / "c", {{"x", {3}, {1, 0, 2}}, {"empty", {0, 4}, {}}, {"zero", {1}, {1}}});
  // A scale of zero makes every error infinite.
  EXPECT_EQ(compare(c, a, 1e9).first_difference >= 0, true);
}

}  // namespace
}  // namespace caravan::model_io

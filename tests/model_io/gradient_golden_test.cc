// Gradients and ten AdamW steps of the twelve models against torch (tests/golden/README.md).
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <span>

#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/model_io/compare.h"
#include "caravan/model_io/dump.h"
#include "caravan/optim/optimizer.h"
#include "caravan/tensor/copy.h"
#include "tests/support/device.h"
#include "tests/support/isa.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::model_io {
namespace {

constexpr double kF32Tolerance = 1e-4;  // of the tensor's scale
constexpr double kF64Tolerance = 1e-6;  // rotary tables in f32, goldens rounded to f32
// Backward passes round about twice as often as forward ones, whose bound is 2e-2.
constexpr double kBF16Tolerance = 4e-2;

std::filesystem::path golden(const std::string& name) {
  return test::source_folder() / "tests" / "golden" / "models" / name;
}

struct Run {
  ops::Backend backend;
  DType dtype;
  autograd::SavePolicy checkpointing = {};
};

// Largest relative error over all gradients; a missing tensor fails the test.
double gradient_error(const std::string& name, const Run& how) {
  const test::ScratchDirectory scratch;
  ops::Context ctx = ops::make_context(
      {.backend = how.backend, .dry_run = false, .threads = 2, .memory_capacity = test::memory_capacity()});
  LoadOptions options;
  options.training = true;
  const LoadedModel model = load_model(ctx, golden(name), how.dtype, options);
  const auto out = scratch.path() / "out.safetensors";
  DumpRequest request;
  request.gradients = true;
  request.checkpointing = how.checkpointing;
  dump(ctx, model, read_id_lists(golden(name) / "ids.json"), request, out);
  double worst = 0.0;
  for (const TensorDifference& one : compare(out, golden(name) / "gradients.safetensors", 1.0).tensors) {
    EXPECT_EQ(one.problem, "") << one.name;
    worst = std::max(worst, std::isnan(one.relative_error) ? 1e300 : one.relative_error);
  }
  return worst;
}

class GradientGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { CARAVAN_SKIP_WITHOUT_ISA(); }
};

INSTANTIATE_TEST_SUITE_P(Torch, GradientGolden,
                         testing::Values("biases", "gqa_dynamic", "gqa_llama3", "gqa_longrope", "gqa_yarn",
                                         "llama1_style", "mha_default", "mqa_linear", "odd_widths", "tied",
                                         "wide_head_dim", "yarn_truncate"),
                         [](const auto& info) { return info.param; });

TEST_P(GradientGolden, ReferenceInF64) {
  EXPECT_LE(gradient_error(GetParam(), {ops::Backend::kRef, DType::kF64}), kF64Tolerance);
}

TEST_P(GradientGolden, CpuInF32) {
  EXPECT_LE(gradient_error(GetParam(), {test::fast_backend(), DType::kF32}), kF32Tolerance);
}

TEST_P(GradientGolden, CpuInBF16) {
  EXPECT_LE(gradient_error(GetParam(), {test::fast_backend(), DType::kBF16}), kBF16Tolerance);
}

TEST_P(GradientGolden, TenAdamWStepsInF32) {
  const std::string path = (golden(GetParam()) / "adamw.json").string();
  const Json expected = parse_json(read_text_file(path, 1 << 20), path);
  const Json& settings = expected.at("adamw");
  ops::Context ctx = ops::make_context(
      {.backend = test::fast_backend(), .dry_run = false, .threads = 2, .memory_capacity = test::memory_capacity()});
  LoadOptions options;
  options.training = true;
  const LoadedModel model = load_model(ctx, golden(GetParam()), DType::kF32, options);
  const IdLists ids = read_id_lists(golden(GetParam()) / "ids.json");
  optim::AdamWConfig config;
  config.lr = settings.at("lr").get<double>();
  config.beta1 = settings.at("betas").at(0).get<double>();
  config.beta2 = settings.at("betas").at(1).get<double>();
  config.eps = settings.at("eps").get<double>();
  config.weight_decay = settings.at("weight_decay").get<double>();
  optim::Optimizer optimizer(ctx, *model.weights, config);
  DumpRequest request;
  request.loss = true;
  request.gradients = true;
  for (const Json& step : expected.at("steps")) {
    model.weights->zero_gradients(ctx);
    const double loss = dump(ctx, model, ids, request, {}).loss;
    const double norm = std::sqrt(optim::squared_gradient_norm(ctx, *model.weights));
    EXPECT_NEAR(loss, step.at("loss").get<double>(), 1e-4 * step.at("loss").get<double>()) << optimizer.steps();
    EXPECT_NEAR(norm, step.at("grad_norm").get<double>(), 1e-4 * step.at("grad_norm").get<double>())
        << optimizer.steps();
    optimizer.step(ctx, 1.0, ops::clip_coefficient(norm, expected.at("max_norm").get<double>()));
  }
  EXPECT_EQ(optimizer.steps(), 10);
}

}  // namespace
}  // namespace caravan::model_io

// Twelve models continue as transformers continues them (tests/golden/README.md).
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/generate/generate.h"
#include "caravan/model_io/load.h"
#include "tests/support/device.h"
#include "tests/support/isa.h"
#include "tests/support/source_folder.h"

namespace caravan::generate {
namespace {

void compare(const std::string& name, ops::Backend backend, DType dtype) {
  const auto folder = test::source_folder() / "tests" / "golden" / "models" / name;
  const std::string path = (folder / "generate.json").string();
  const Json expected = parse_json(read_text_file(path, 1 << 20), path);
  ops::Context ctx = ops::make_context(
      {.backend = backend, .dry_run = false, .threads = 2, .memory_capacity = test::memory_capacity()});
  const model_io::LoadedModel model = model_io::load_model(ctx, folder, dtype);
  std::vector<Request> requests;
  for (const Json& one : expected) {
    requests.push_back({.prompt = one.at("prompt").get<std::vector<std::int32_t>>(),
                        .max_new_tokens = static_cast<std::int64_t>(one.at("ids").size())});
  }
  const std::vector<Result> results = generate(ctx, *model.llama, requests);
  ASSERT_GE(results.size(), 3U);
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].ids, expected[i].at("ids").get<std::vector<std::int32_t>>()) << "prompt " << i;
  }
}

class GenerateGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { CARAVAN_SKIP_WITHOUT_ISA(); }
};

INSTANTIATE_TEST_SUITE_P(Transformers, GenerateGolden,
                         testing::Values("biases", "gqa_dynamic", "gqa_llama3", "gqa_longrope", "gqa_yarn",
                                         "llama1_style", "mha_default", "mqa_linear", "odd_widths", "tied",
                                         "wide_head_dim", "yarn_truncate"),
                         [](const auto& info) { return info.param; });

TEST_P(GenerateGolden, GreedyIdsOfTheReferenceInF64) {
  compare(GetParam(), ops::Backend::kRef, DType::kF64);
}

TEST_P(GenerateGolden, GreedyIdsOfTheCpuInF32) {
  compare(GetParam(), test::fast_backend(), DType::kF32);
}

// What transformers' warpers leave and with which probabilities, ties at the edges of top_k and top_p among it.
TEST(SamplingGolden, TheSetsAndProbabilitiesAreTransformers) {
  const std::string path = test::source_folder().string() + "/tests/golden/ops/sampling.json";
  int cases = 0;
  for (const Json& table : parse_json(read_text_file(path, 1 << 20), path)) {
    const auto logits = table.at("logits").get<std::vector<float>>();
    for (const Json& one : table.at("cases")) {
      const SamplingOptions options{.do_sample = true,
                                    .temperature = one.at("temperature").get<double>(),
                                    .top_k = one.at("top_k").get<std::int64_t>(),
                                    .top_p = one.at("top_p").get<double>()};
      std::vector<std::int32_t> ids;
      const std::vector<TokenProbability> found = distribution(logits, options);
      for (const TokenProbability& token : found) {
        ids.push_back(token.id);
      }
      ASSERT_EQ(ids, one.at("ids").get<std::vector<std::int32_t>>())
          << logits.size() << " logits, temperature " << options.temperature << ", top_k " << options.top_k
          << ", top_p " << options.top_p;
      for (std::size_t i = 0; i < found.size(); ++i) {
        // Both in f64; the file has twelve digits.
        EXPECT_NEAR(found[i].probability, one.at("probabilities")[i].get<double>(), 2e-12);
      }
      ++cases;
    }
  }
  EXPECT_EQ(cases, 300);
}

}  // namespace
}  // namespace caravan::generate

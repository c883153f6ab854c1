// Twelve models continue as transformers continues them (tests/golden/README.md).
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/generate/generate.h"
#include "caravan/model_io/load.h"
#include "tests/support/isa.h"

namespace caravan::generate {
namespace {

void compare(const std::string& name, ops::Backend backend, DType dtype) {
  const auto folder = std::filesystem::path(CARAVAN_SOURCE_DIR) / "tests" / "golden" / "models" / name;
  const std::string path = (folder / "generate.json").string();
  const Json expected = parse_json(read_text_file(path, 1 << 20), path);
  ops::Context ctx = ops::make_context({.backend = backend, .dry_run = false, .threads = 2});
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
  compare(GetParam(), ops::Backend::kCpu, DType::kF32);
}

}  // namespace
}  // namespace caravan::generate

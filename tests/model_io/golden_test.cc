// Twelve models against transformers (tests/golden/README.md): hidden states of every layer, logits and loss.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>

#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/model_io/compare.h"
#include "caravan/model_io/dump.h"
#include "caravan/tensor/copy.h"
#include "tests/support/device.h"
#include "tests/support/isa.h"
#include "tests/support/scratch.h"
#include "tests/support/source_folder.h"

namespace caravan::model_io {
namespace {

constexpr double kF32Tolerance = 1e-4;  // of the tensor's scale: the contract of a "Hugging Face-exact" Llama
constexpr double kBF16Tolerance = 2e-2;
// The reference in f64 differs from the goldens by their own rounding to f32 and by the f32 of the rotary tables alone.
constexpr double kF64Tolerance = 2e-6;

std::filesystem::path golden(const std::string& name) {
  return test::source_folder() / "tests" / "golden" / "models" / name;
}

double expected_loss(const std::string& name) {
  const std::string path = (golden(name) / "expected.json").string();
  return parse_json(read_text_file(path, 1 << 20), path).at("loss").get<double>();
}

struct Errors {
  double worst = 0.0;  // relative error over all tensors
  std::string worst_name;
  double loss_error = 0.0;  // relative
};

struct Run {
  ops::Backend backend;
  DType dtype;
};

// Changes a loaded model before it runs: what a mutation test does wrong on purpose.
using Mutation = std::function<void(LoadedModel&)>;

Errors run(const std::string& name, const Run& how, const LoadOptions& options = {}, const Mutation& mutate = {}) {
  const test::ScratchDirectory scratch;
  ops::Context ctx = ops::make_context(
      {.backend = how.backend, .dry_run = false, .threads = 2, .memory_capacity = test::memory_capacity()});
  LoadedModel model = load_model(ctx, golden(name), how.dtype, options);
  if (mutate) {
    mutate(model);
  }
  const auto out = scratch.path() / "out.safetensors";
  const DumpResult result =
      dump(ctx, model, read_id_lists(golden(name) / "ids.json"), {.logits = true, .hidden = true, .loss = true}, out);
  Errors errors;
  for (const TensorDifference& one : compare(out, golden(name) / "expected.safetensors", 1.0).tensors) {
    EXPECT_EQ(one.problem, "") << one.name;
    if (!(one.relative_error <= errors.worst)) {
      errors.worst = one.relative_error;
      errors.worst_name = one.name;
    }
  }
  errors.loss_error = std::abs(result.loss - expected_loss(name)) / expected_loss(name);
  return errors;
}

const std::vector<std::string> kModels = {"biases",     "gqa_dynamic",  "gqa_llama3",    "gqa_longrope",
                                          "gqa_yarn",   "llama1_style", "mha_default",   "mqa_linear",
                                          "odd_widths", "tied",         "wide_head_dim", "yarn_truncate"};

class Golden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { CARAVAN_SKIP_WITHOUT_ISA(); }
};

INSTANTIATE_TEST_SUITE_P(Transformers, Golden, testing::ValuesIn(kModels), [](const auto& info) { return info.param; });

TEST_P(Golden, ReferenceInF64) {
  const Errors errors = run(GetParam(), {ops::Backend::kRef, DType::kF64});
  EXPECT_LE(errors.worst, kF64Tolerance) << errors.worst_name;
  EXPECT_LE(errors.loss_error, kF64Tolerance);
}

TEST_P(Golden, ReferenceInF32) {
  const Errors errors = run(GetParam(), {ops::Backend::kRef, DType::kF32});
  EXPECT_LE(errors.worst, kF32Tolerance) << errors.worst_name;
  EXPECT_LE(errors.loss_error, kF32Tolerance);
}

TEST_P(Golden, CpuInF32) {
  const Errors errors = run(GetParam(), {test::fast_backend(), DType::kF32});
  EXPECT_LE(errors.worst, kF32Tolerance) << errors.worst_name;
  EXPECT_LE(errors.loss_error, kF32Tolerance);
}

TEST_P(Golden, CpuInBF16) {
  const Errors errors = run(GetParam(), {test::fast_backend(), DType::kBF16});
  EXPECT_LE(errors.worst, kBF16Tolerance) << errors.worst_name;
  EXPECT_LE(errors.loss_error, kBF16Tolerance);
}

TEST_P(Golden, InterleavedPairingGivesTheSameNumbers) {
  LoadOptions options;
  options.adjust = [](model::LlamaConfig& config) { config.rope_pairing = ops::RopePairing::kInterleaved; };
  EXPECT_LE(run(GetParam(), {test::fast_backend(), DType::kF32}, options).worst, kF32Tolerance);
}

// Rebuilds the model over the same weights with another config.
Mutation with_config(const std::function<void(model::LlamaConfig&)>& change) {
  return [change](LoadedModel& model) {
    change(model.config.model);
    model.llama = std::make_unique<model::Llama>(model.config.model, *model.weights);
  };
}

void fill(const Tensor& tensor, float value) {
  const std::vector<float> values(static_cast<std::size_t>(tensor.elements()), value);
  copy_from_host(tensor, std::as_bytes(std::span(values)));
}

// Exchanges two blocks of rows of a parameter.
void swap_rows(autograd::Parameter& parameter, std::int64_t a, std::int64_t b, std::int64_t rows) {
  const Tensor first = parameter.tensor().row_range(a, a + rows);
  const Tensor second = parameter.tensor().row_range(b, b + rows);
  std::vector<std::byte> first_bytes(static_cast<std::size_t>(first.bytes()));
  std::vector<std::byte> second_bytes(static_cast<std::size_t>(second.bytes()));
  copy_to_host(first_bytes, first);
  copy_to_host(second_bytes, second);
  copy_from_host(first, second_bytes);
  copy_from_host(second, first_bytes);
  parameter.weight.changed();
}

struct Wrong {
  const char* what;
  const char* model;
  Mutation mutate;
};

const std::vector<Wrong> kWrongs = {
    {"wrong_rope_pairing", "mha_default",
     with_config([](model::LlamaConfig& c) { c.rope_pairing = ops::RopePairing::kInterleaved; })},
    {"eps", "llama1_style", with_config([](model::LlamaConfig& c) { c.rms_norm_eps *= 1000.0; })},
    {"query_head_order", "gqa_llama3",
     [](LoadedModel& m) {
       swap_rows(m.weights->at("model.layers.0.self_attn.qkv_proj.weight"), 0, m.config.model.head_dim,
                 m.config.model.head_dim);
     }},
    {"gate_and_up_exchanged", "mha_default",
     [](LoadedModel& m) {
       const std::int64_t rows = m.config.model.intermediate_size;
       swap_rows(m.weights->at("model.layers.0.mlp.gate_up_proj.weight"), 0, rows, rows);
     }},
    {"missing_qkv_bias", "biases",
     [](LoadedModel& m) { fill(m.weights->at("model.layers.0.self_attn.qkv_proj.bias").tensor(), 0.0F); }},
    {"missing_down_bias", "biases",
     [](LoadedModel& m) { fill(m.weights->at("model.layers.1.mlp.down_proj.bias").tensor(), 0.0F); }},
    {"untrained_norm", "tied", [](LoadedModel& m) { fill(m.weights->at("model.norm.weight").tensor(), 1.0F); }},
    {"theta", "wide_head_dim", with_config([](model::LlamaConfig& c) { c.rope.theta *= 1.5; })},
    {"llama3_scaling_ignored", "gqa_llama3",
     with_config([](model::LlamaConfig& c) { c.rope.kind = nn::RopeKind::kDefault; })},
    {"linear_factor", "mqa_linear", with_config([](model::LlamaConfig& c) { c.rope.factor *= 2.0; })},
    {"dynamic_ignored", "gqa_dynamic", with_config([](model::LlamaConfig& c) {
       c.rope.kind = nn::RopeKind::kDefault, c.rope.max_position_embeddings = 4096;
     })},
    {"yarn_attention_scaling_dropped", "yarn_truncate",
     with_config([](model::LlamaConfig& c) { c.rope.attention_factor = 1.0; })},
    {"yarn_truncated", "yarn_truncate", with_config([](model::LlamaConfig& c) { c.rope.truncate = true; })},
    {"longrope_factors_exchanged", "gqa_longrope",
     with_config([](model::LlamaConfig& c) { std::swap(c.rope.short_factor, c.rope.long_factor); })},
};

class GoldenMutation : public testing::TestWithParam<std::size_t> {
 protected:
  void SetUp() override { CARAVAN_SKIP_WITHOUT_ISA(); }
};

INSTANTIATE_TEST_SUITE_P(All, GoldenMutation, testing::Range(std::size_t{0}, kWrongs.size()),
                         [](const auto& info) { return std::string(kWrongs[info.param].what); });

// The tolerance is tight enough to see each of these mistakes, with an order of magnitude to spare.
TEST_P(GoldenMutation, IsSeen) {
  const Wrong& wrong = kWrongs[GetParam()];
  EXPECT_GT(run(wrong.model, {ops::Backend::kRef, DType::kF32}, {}, wrong.mutate).worst, 10.0 * kF32Tolerance);
}

TEST(RopeKinds, HaveTransformersFrequencies) {
  const std::string path = (test::source_folder() / "tests" / "golden" / "ops" / "rope_kinds.json").string();
  int tables = 0;
  for (const Json& one : parse_json(read_text_file(path, 1 << 20), path)) {
    const std::string name = one.at("name").get<std::string>();
    const auto head_dim = one.at("head_dim").get<std::int64_t>();
    Json config = {{"model_type", "llama"},
                   {"vocab_size", 100},
                   {"hidden_size", 4 * head_dim},
                   {"intermediate_size", 100},
                   {"num_hidden_layers", 1},
                   {"num_attention_heads", 4},
                   {"head_dim", head_dim},
                   {"rope_parameters", one.at("rope_parameters")},
                   {"max_position_embeddings", one.at("max_position_embeddings")}};
    const nn::RopeConfig rope = parse_hf_config(config.dump(), name).model.rope;
    EXPECT_NEAR(nn::rope_attention_scaling(rope), one.at("attention_scaling").get<double>(), 1e-12) << name;
    for (const Json& table : one.at("tables")) {
      const auto expected = table.at("frequencies").get<std::vector<float>>();
      const std::vector<float> found = nn::rope_frequencies(rope, head_dim, table.at("length").get<std::int64_t>());
      ASSERT_EQ(found.size(), expected.size()) << name;
      for (std::size_t i = 0; i < found.size(); ++i) {
        // A power and two to four f32 roundings, in another library's order.
        EXPECT_NEAR(found[i], expected[i], 6.0F * std::ldexp(expected[i], -24)) << name << " " << i;
      }
      ++tables;
    }
  }
  EXPECT_GE(tables, 8);
}

}  // namespace
}  // namespace caravan::model_io

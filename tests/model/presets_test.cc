#include "caravan/model/presets.h"

#include <gtest/gtest.h>

#include <map>

#include "caravan/base/error.h"

namespace caravan::model {
namespace {

// The counts that the released checkpoints have (transformers' num_parameters(), a tied head once); the debug model's
// is torchtitan's own count for a vocabulary of 2,048.
TEST(Presets, HaveThePublishedParameterCounts) {
  const std::map<std::string, std::int64_t> expected = {
      {"llama-7b", 6'738'415'616},     {"llama-13b", 13'015'864'320},
      {"llama-33b", 32'528'943'616},   {"llama-65b", 65'285'660'672},
      {"llama2-7b", 6'738'415'616},    {"llama2-13b", 13'015'864'320},
      {"llama2-70b", 68'976'648'192},  {"llama3-8b", 8'030'261'248},
      {"llama3-70b", 70'553'706'496},  {"llama3-405b", 405'853'388'800},
      {"llama3.2-1b", 1'235'814'400},  {"llama3.2-3b", 3'212'749'824},
      {"torchtitan-debug", 6'163'712}, {"tiny", 131 * 32 * 2 + 2 * (32 * 64 + 32 * 32 + 3 * 32 * 88 + 64) + 32},
  };
  for (const Preset& one : presets()) {
    ASSERT_TRUE(expected.contains(one.name)) << one.name;
    EXPECT_EQ(parameter_count(parameter_specs(one.config)), expected.at(one.name)) << one.name;
  }
  EXPECT_EQ(presets().size(), expected.size());
}

TEST(Presets, NameTheNearestOfAnUnknownName) {
  try {
    preset("llama3-8");
    FAIL() << "no exception";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("\"llama3-8b\""), std::string::npos) << error.what();
  }
  try {
    preset("something else");
    FAIL() << "no exception";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("there are llama-7b, "), std::string::npos) << error.what();
  }
}

TEST(LlamaConfig, RefusesImpossibleNumbersByName) {
  const auto refused = [](auto change) {
    LlamaConfig config = preset("tiny");
    change(config);
    try {
      validate(config);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_NE(refused([](LlamaConfig& c) { c.vocab_size = 0; }).find("vocab_size"), std::string::npos);
  EXPECT_NE(refused([](LlamaConfig& c) { c.hidden_size = -1; }).find("hidden_size"), std::string::npos);
  EXPECT_NE(refused([](LlamaConfig& c) { c.intermediate_size = std::int64_t{1} << 62; }).find("intermediate_size"),
            std::string::npos);
  EXPECT_NE(refused([](LlamaConfig& c) { c.num_key_value_heads = 3; }).find("num_key_value_heads (3)"),
            std::string::npos);
  EXPECT_NE(refused([](LlamaConfig& c) { c.head_dim = 7; }).find("even"), std::string::npos);
  EXPECT_NE(refused([](LlamaConfig& c) { c.rms_norm_eps = -1.0; }).find("rms_norm_eps"), std::string::npos);
  EXPECT_NE(refused([](LlamaConfig& c) { c.rope.theta = 0.0; }).find("rope_theta"), std::string::npos);
  EXPECT_NE(refused([](LlamaConfig& c) { c.num_hidden_layers = 1'000'000; }).find("num_hidden_layers"),
            std::string::npos);
}

TEST(ParameterSpecs, StandInUnitOrderAndNameTheirParts) {
  LlamaConfig config = preset("tiny");
  config.attention_bias = true;
  config.tie_word_embeddings = true;
  const std::vector<ParamSpec> specs = parameter_specs(config);
  EXPECT_EQ(specs.front().name, "model.embed_tokens.weight");
  EXPECT_EQ(specs.back().name, "lm_head.weight");
  EXPECT_EQ(specs.back().alias_of, "model.embed_tokens.weight");
  int unit = 0;
  for (const ParamSpec& spec : specs) {
    EXPECT_GE(spec.unit, unit) << spec.name;
    unit = spec.unit;
    std::int64_t rows = 0;
    for (const ParamPart& part : spec.parts) {
      EXPECT_EQ(part.row_begin, rows) << part.name;
      rows += part.shape[0];
    }
    EXPECT_EQ(rows, spec.shape[0]) << spec.name;
  }
  EXPECT_EQ(unit, 3);
  const ParamSpec& qkv = specs[2];
  ASSERT_EQ(qkv.name, "model.layers.0.self_attn.qkv_proj.weight");
  ASSERT_EQ(qkv.parts.size(), 3U);
  EXPECT_EQ(qkv.parts[1].name, "model.layers.0.self_attn.k_proj.weight");
  EXPECT_EQ(qkv.parts[1].shape, (Shape{16, 32}));
  EXPECT_EQ(qkv.parts[1].row_begin, 32);
}

}  // namespace
}  // namespace caravan::model

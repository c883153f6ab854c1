#include "caravan/layout/param_spec.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

ParamSpec spec(const std::string& name, const Shape& shape) {
  ParamSpec result;
  result.name = name;
  result.shape = shape;
  result.parts = {{.name = name, .shape = shape, .row_begin = 0}};
  return result;
}

TEST(ParameterCount, AddsUpStoredElements) {
  ParamSpec tied = spec("lm_head.weight", {131, 32});
  tied.alias_of = "model.embed_tokens.weight";
  ParamSpec frozen = spec("model.norm.weight", {32});
  frozen.trainable = false;
  EXPECT_EQ(parameter_count({}), 0);
  EXPECT_EQ(parameter_count({spec("model.embed_tokens.weight", {131, 32}), frozen, tied}), 131 * 32 + 32);
}

TEST(ParameterCount, CountsAFusionOnce) {
  ParamSpec fusion = spec("model.layers.0.self_attn.qkv_proj.weight", {96, 32});
  fusion.parts = {{.name = "q", .shape = {64, 32}, .row_begin = 0},
                  {.name = "k", .shape = {16, 32}, .row_begin = 64},
                  {.name = "v", .shape = {16, 32}, .row_begin = 80}};
  EXPECT_EQ(parameter_count({fusion}), 96 * 32);
}

}  // namespace
}  // namespace caravan

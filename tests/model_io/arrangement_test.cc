#include "caravan/model_io/arrangement.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/model/presets.h"

namespace caravan::model_io {
namespace {

model::LlamaConfig small(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
  model::LlamaConfig config = model::preset("tiny");
  config.num_hidden_layers = 1;
  config.hidden_size = heads * head_dim;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = head_dim;
  return config;
}

const FileTensor& tensor(const Arrangement& arrangement, const std::string& name) {
  const auto found = std::ranges::find(arrangement.tensors, name, &FileTensor::name);
  EXPECT_NE(found, arrangement.tensors.end()) << name;
  return *found;
}

// "q3 q4 k0": the last letters of the parts and the rows, one by one.
std::string rows_text(const Arrangement& arrangement, const FileTensor& tensor) {
  std::string text;
  for (const RowRun& run : tensor.rows) {
    const std::string& part = arrangement.parts[static_cast<std::size_t>(run.part)].name;
    const std::size_t end = part.find("_proj.");
    for (std::int64_t row = run.begin; row < run.begin + run.count; ++row) {
      text += (text.empty() ? "" : " ") + part.substr(end - 1, 1) + std::to_string(row);
    }
  }
  return text;
}

TEST(Arrangement, EveryRowOfEveryPartStandsOnceInEachFormat) {
  for (const Dialect dialect : {Dialect::kHuggingFace, Dialect::kGguf, Dialect::kTransformerEngine}) {
    const Arrangement arrangement = arrange(small(6, 3, 4), dialect);
    std::vector<std::vector<int>> seen;
    for (const ParamPart& part : arrangement.parts) {
      seen.emplace_back(static_cast<std::size_t>(part.shape[0]), 0);
    }
    for (const FileTensor& one : arrangement.tensors) {
      std::int64_t rows = 0;
      for (const RowRun& run : one.rows) {
        rows += run.count;
        for (std::int64_t row = run.begin; row < run.begin + run.count; ++row) {
          ++seen[static_cast<std::size_t>(run.part)].at(static_cast<std::size_t>(row));
        }
      }
      EXPECT_EQ(rows, one.shape.front()) << one.name;
    }
    for (const auto& part : seen) {
      EXPECT_TRUE(std::ranges::all_of(part, [](int count) { return count == 1; }));
    }
    // And back: a part's places, in its order, are where the runs put it.
    for (std::size_t part = 0; part < arrangement.parts.size(); ++part) {
      std::int64_t row = 0;
      for (const PlaceRun& place : arrangement.places[part]) {
        std::int64_t at = 0;
        bool found = false;
        for (const RowRun& run : arrangement.tensors[static_cast<std::size_t>(place.tensor)].rows) {
          found = found || (at == place.begin && run.part == static_cast<std::int32_t>(part) && run.begin == row &&
                            run.count == place.count);
          at += run.count;
        }
        EXPECT_TRUE(found) << arrangement.parts[part].name << " row " << row;
        row += place.count;
      }
      EXPECT_EQ(row, arrangement.parts[part].shape[0]);
    }
  }
}

// llama.cpp's converter: reshape(heads, 2, dim / 2).swapaxes(1, 2).
TEST(Arrangement, GgufTakesTheHalvesOfAHeadInTurn) {
  const Arrangement arrangement = arrange(small(2, 1, 6), Dialect::kGguf);
  EXPECT_EQ(rows_text(arrangement, tensor(arrangement, "blk.0.attn_q.weight")),
            "q0 q3 q1 q4 q2 q5 q6 q9 q7 q10 q8 q11");
  EXPECT_EQ(rows_text(arrangement, tensor(arrangement, "blk.0.attn_k.weight")), "k0 k3 k1 k4 k2 k5");
  EXPECT_EQ(rows_text(arrangement, tensor(arrangement, "blk.0.attn_v.weight")), "v0 v1 v2 v3 v4 v5");
}

// BioNeMo's merge_qkv: of each key/value head its query heads, itself, its value head.
TEST(Arrangement, TransformerEngineHasQueriesKeyAndValueByGroups) {
  const Arrangement arrangement = arrange(small(4, 2, 2), Dialect::kTransformerEngine);
  const FileTensor& qkv = tensor(arrangement, "model.layers.0.self_attention.layernorm_qkv.weight");
  EXPECT_EQ(qkv.shape, (std::vector<std::int64_t>{16, 8}));
  EXPECT_EQ(rows_text(arrangement, qkv), "q0 q1 q2 q3 k0 k1 v0 v1 q4 q5 q6 q7 k2 k3 v2 v3");
  const FileTensor& gate_up = tensor(arrangement, "model.layers.0.layernorm_mlp.fc1_weight");
  EXPECT_EQ(rows_text(arrangement, gate_up).substr(0, 6), "e0 e1 ");  // gate first
  for (const char* name :
       {"model.embed_tokens.weight", "model.layers.0.self_attention.layernorm_qkv.layer_norm_weight",
        "model.layers.0.self_attention.proj.weight", "model.layers.0.layernorm_mlp.layer_norm_weight",
        "model.layers.0.layernorm_mlp.fc2_weight", "model.norm.weight", "lm_head.weight"}) {
    tensor(arrangement, name);
  }
  EXPECT_EQ(arrangement.tensors.size(), 9U);
}

TEST(Arrangement, TransformerEngineHoldsNeitherBiasesNorOtherHeads) {
  model::LlamaConfig config = small(4, 2, 2);
  config.attention_bias = true;
  EXPECT_THROW(arrange(config, Dialect::kTransformerEngine), UnsupportedError);
  config = small(4, 2, 2);
  config.head_dim = 4;
  EXPECT_THROW(arrange(config, Dialect::kTransformerEngine), UnsupportedError);
  EXPECT_NO_THROW(arrange(config, Dialect::kGguf));
}

TEST(Arrangement, ATiedHeadIsNoTensor) {
  model::LlamaConfig config = small(4, 2, 2);
  config.tie_word_embeddings = true;
  for (const Dialect dialect : {Dialect::kHuggingFace, Dialect::kGguf, Dialect::kTransformerEngine}) {
    for (const FileTensor& one : arrange(config, dialect).tensors) {
      EXPECT_NE(one.name, "lm_head.weight");
      EXPECT_NE(one.name, "output.weight");
    }
  }
}

}  // namespace
}  // namespace caravan::model_io

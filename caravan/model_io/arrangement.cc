#include "caravan/model_io/arrangement.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/model_io/rope_rows.h"

namespace caravan::model_io {

namespace {

std::vector<std::int64_t> extents(const Shape& shape) {
  return {shape.extents().begin(), shape.extents().end()};
}

// "model.layers.3.mlp.up_proj.weight" as "3" and "mlp.up_proj.weight"; an empty layer for other names.
std::pair<std::string, std::string> split_layer(const std::string& part) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!part.starts_with(kPrefix)) {
    return {"", part};
  }
  const std::size_t dot = part.find('.', kPrefix.size());
  return {part.substr(kPrefix.size(), dot - kPrefix.size()), part.substr(dot + 1)};
}

// llama.cpp's name of a part.
std::string gguf_name(const std::string& part) {
  static const std::map<std::string, std::string> kWhole = {{"model.embed_tokens.weight", "token_embd.weight"},
                                                            {"model.norm.weight", "output_norm.weight"},
                                                            {"lm_head.weight", "output.weight"}};
  static const std::map<std::string, std::string> kInLayer = {
      {"input_layernorm", "attn_norm"}, {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},   {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},    {"mlp.up_proj", "ffn_up"},           {"mlp.down_proj", "ffn_down"}};
  const auto [layer, rest] = split_layer(part);
  if (layer.empty()) {
    return kWhole.at(part);
  }
  const std::size_t dot = rest.rfind('.');  // before "weight" or "bias"
  return fmt::format("blk.{}.{}{}", layer, kInLayer.at(rest.substr(0, dot)), rest.substr(dot));
}

// Runs of single rows in the given order, neighbours joined.
std::vector<RowRun> runs_of(std::int32_t part, const std::vector<std::int64_t>& order) {
  std::vector<RowRun> runs;
  for (const std::int64_t row : order) {
    if (!runs.empty() && runs.back().begin + runs.back().count == row) {
      ++runs.back().count;
    } else {
      runs.push_back({part, row, 1});
    }
  }
  return runs;
}

struct Maker {
  const model::LlamaConfig& config;
  Arrangement& out;
  std::map<std::string, std::int32_t> number;  // of a part

  void add(const std::string& name, const std::vector<std::int64_t>& shape, std::vector<RowRun> rows) const {
    out.tensors.push_back({name, shape, std::move(rows)});
  }

  RowRun whole(const std::string& part) const {
    const std::int32_t index = number.at(part);
    return {index, 0, out.parts[static_cast<std::size_t>(index)].shape[0]};
  }

  void hugging_face() const {
    for (const ParamPart& part : out.parts) {
      add(part.name, extents(part.shape), {whole(part.name)});
    }
  }

  void gguf() const {
    for (const ParamPart& part : out.parts) {
      const RowRun all = whole(part.name);
      add(gguf_name(part.name), extents(part.shape),
          has_rotary_rows(part.name) ? runs_of(all.part, interleaved_from_half(all.count, config.head_dim))
                                     : std::vector<RowRun>{all});
    }
  }

  // q, k and v by groups of heads.
  std::vector<RowRun> fused_attention(const std::string& prefix) const {
    const std::int64_t dim = config.head_dim;
    const std::int64_t group = config.num_attention_heads / config.num_key_value_heads;
    const std::int32_t q = number.at(prefix + "self_attn.q_proj.weight");
    const std::int32_t k = number.at(prefix + "self_attn.k_proj.weight");
    const std::int32_t v = number.at(prefix + "self_attn.v_proj.weight");
    std::vector<RowRun> rows;
    for (std::int64_t head = 0; head < config.num_key_value_heads; ++head) {
      rows.push_back({q, head * group * dim, group * dim});
      rows.push_back({k, head * dim, dim});
      rows.push_back({v, head * dim, dim});
    }
    return rows;
  }

  void transformer_engine() const {
    for (const ParamPart& part : out.parts) {
      const auto [layer, rest] = split_layer(part.name);
      const std::string prefix = fmt::format("model.layers.{}.", layer);
      const std::int64_t hidden = config.hidden_size;
      if (layer.empty()) {
        add(part.name, extents(part.shape), {whole(part.name)});
      } else if (rest == "input_layernorm.weight") {
        add(prefix + "self_attention.layernorm_qkv.layer_norm_weight", {hidden}, {whole(part.name)});
      } else if (rest == "self_attn.q_proj.weight") {
        const std::int64_t heads = config.num_attention_heads + 2 * config.num_key_value_heads;
        add(prefix + "self_attention.layernorm_qkv.weight", {heads * config.head_dim, hidden}, fused_attention(prefix));
      } else if (rest == "self_attn.o_proj.weight") {
        add(prefix + "self_attention.proj.weight", extents(part.shape), {whole(part.name)});
      } else if (rest == "post_attention_layernorm.weight") {
        add(prefix + "layernorm_mlp.layer_norm_weight", {hidden}, {whole(part.name)});
      } else if (rest == "mlp.gate_proj.weight") {
        add(prefix + "layernorm_mlp.fc1_weight", {2 * config.intermediate_size, hidden},
            {whole(part.name), whole(prefix + "mlp.up_proj.weight")});
      } else if (rest == "mlp.down_proj.weight") {
        add(prefix + "layernorm_mlp.fc2_weight", extents(part.shape), {whole(part.name)});
      }  // k, v and up stand in the tensors of q and gate
    }
  }
};

// The table read the other way.
void place_parts(Arrangement& arrangement) {
  struct Found {
    std::int64_t part_row;
    PlaceRun place;
  };
  std::vector<std::vector<Found>> found(arrangement.parts.size());
  for (std::size_t t = 0; t < arrangement.tensors.size(); ++t) {
    std::int64_t row = 0;
    for (const RowRun& run : arrangement.tensors[t].rows) {
      found[static_cast<std::size_t>(run.part)].push_back({run.begin, {static_cast<std::int32_t>(t), row, run.count}});
      row += run.count;
    }
  }
  for (std::vector<Found>& runs : found) {
    std::ranges::sort(runs, {}, &Found::part_row);
    std::vector<PlaceRun>& places = arrangement.places.emplace_back();
    for (const Found& one : runs) {
      places.push_back(one.place);
    }
  }
}

void check_transformer_engine(const model::LlamaConfig& config) {
  if (config.attention_bias || config.mlp_bias) {
    throw UnsupportedError("TransformerEngine's names have no place for biases, which this model has");
  }
  if (config.head_dim * config.num_attention_heads != config.hidden_size) {
    throw UnsupportedError(
        fmt::format("TransformerEngine's heads have hidden_size / num_attention_heads ({} / {}) elements, this model's "
                    "have {}",
                    config.hidden_size, config.num_attention_heads, config.head_dim));
  }
}

}  // namespace

std::int64_t rows_of(const std::vector<std::int64_t>& shape) {
  return shape.front();
}

std::int64_t columns_of(const std::vector<std::int64_t>& shape) {
  return shape.size() == 1 ? 1 : shape[1];
}

Arrangement arrange(const model::LlamaConfig& config, Dialect dialect) {
  Arrangement result;
  for (const ParamSpec& spec : model::parameter_specs(config)) {
    if (spec.alias_of.empty()) {
      result.parts.insert(result.parts.end(), spec.parts.begin(), spec.parts.end());
    }
  }
  Maker maker{config, result, {}};
  for (std::size_t i = 0; i < result.parts.size(); ++i) {
    maker.number[result.parts[i].name] = static_cast<std::int32_t>(i);
  }
  switch (dialect) {
    case Dialect::kHuggingFace:
      maker.hugging_face();
      break;
    case Dialect::kGguf:
      maker.gguf();
      break;
    case Dialect::kTransformerEngine:
      check_transformer_engine(config);
      maker.transformer_engine();
      break;
  }
  place_parts(result);
  return result;
}

}  // namespace caravan::model_io

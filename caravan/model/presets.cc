#include "caravan/model/presets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

#include "caravan/base/error.h"
#include "caravan/base/text.h"

namespace caravan::model {

namespace {

struct Sizes {
  std::int64_t hidden, intermediate, layers, heads, kv_heads;
};

LlamaConfig with_sizes(const Sizes& sizes) {
  LlamaConfig config;
  config.hidden_size = sizes.hidden;
  config.intermediate_size = sizes.intermediate;
  config.num_hidden_layers = sizes.layers;
  config.num_attention_heads = sizes.heads;
  config.num_key_value_heads = sizes.kv_heads;
  config.head_dim = sizes.hidden / sizes.heads;
  return config;
}

// Touvron et al. 2023, table 2; eps and length of the released params.json.
LlamaConfig llama1(const Sizes& sizes) {
  LlamaConfig config = with_sizes(sizes);
  config.rms_norm_eps = 1e-6;
  config.rope.max_position_embeddings = 2048;
  return config;
}

LlamaConfig llama2(const Sizes& sizes) {
  LlamaConfig config = with_sizes(sizes);
  config.rms_norm_eps = 1e-5;
  config.rope.max_position_embeddings = 4096;
  return config;
}

// Grattafiori et al. 2024, table 3; the scaled rotary embedding of the 3.1 (factor 8) and 3.2 (factor 32) releases.
LlamaConfig llama3(const Sizes& sizes, double factor) {
  LlamaConfig config = with_sizes(sizes);
  config.vocab_size = 128256;
  config.rms_norm_eps = 1e-5;
  config.rope.kind = nn::RopeKind::kLlama3;
  config.rope.theta = 500000.0;
  config.rope.factor = factor;
  config.rope.factor_given = true;
  config.rope.low_freq_factor = 1.0;
  config.rope.high_freq_factor = 4.0;
  config.rope.original_max_position_embeddings = 8192;
  config.rope.max_position_embeddings = 131072;
  return config;
}

LlamaConfig llama32(const Sizes& sizes) {
  LlamaConfig config = llama3(sizes, 32.0);
  config.tie_word_embeddings = true;
  return config;
}

LlamaConfig torchtitan_debug() {
  LlamaConfig config = llama3({256, 768, 6, 16, 16}, 8.0);
  config.vocab_size = 2048;
  return config;
}

LlamaConfig tiny() {
  LlamaConfig config = with_sizes({32, 88, 2, 4, 2});
  config.vocab_size = 131;
  config.rms_norm_eps = 1e-5;
  config.rope.max_position_embeddings = 256;
  return config;
}

}  // namespace

std::vector<Preset> presets() {
  return {
      {"llama-7b", "LLaMA 1, 7B", llama1({4096, 11008, 32, 32, 32})},
      {"llama-13b", "LLaMA 1, 13B", llama1({5120, 13824, 40, 40, 40})},
      {"llama-33b", "LLaMA 1, 33B", llama1({6656, 17920, 60, 52, 52})},
      {"llama-65b", "LLaMA 1, 65B", llama1({8192, 22016, 80, 64, 64})},
      {"llama2-7b", "Llama 2, 7B", llama2({4096, 11008, 32, 32, 32})},
      {"llama2-13b", "Llama 2, 13B", llama2({5120, 13824, 40, 40, 40})},
      {"llama2-70b", "Llama 2, 70B", llama2({8192, 28672, 80, 64, 8})},
      {"llama3-8b", "Llama 3.1, 8B", llama3({4096, 14336, 32, 32, 8}, 8.0)},
      {"llama3-70b", "Llama 3.1, 70B", llama3({8192, 28672, 80, 64, 8}, 8.0)},
      {"llama3-405b", "Llama 3.1, 405B", llama3({16384, 53248, 126, 128, 8}, 8.0)},
      {"llama3.2-1b", "Llama 3.2, 1B", llama32({2048, 8192, 16, 32, 8})},
      {"llama3.2-3b", "Llama 3.2, 3B", llama32({3072, 8192, 28, 24, 8})},
      {"torchtitan-debug", "torchtitan's llama3 debugmodel", torchtitan_debug()},
      {"tiny", "two small layers, for tests", tiny()},
  };
}

LlamaConfig preset(const std::string& name) {
  const std::vector<Preset> all = presets();
  const auto found = std::ranges::find_if(all, [&](const Preset& one) { return name == one.name; });
  if (found != all.end()) {
    return found->config;
  }
  std::vector<std::string> names;
  std::ranges::transform(all, std::back_inserter(names), &Preset::name);
  const auto nearest = nearest_word(name, names);
  throw InputError(fmt::format(
      "there is no preset \"{}\"; {}", printable(name, 60),
      nearest ? fmt::format("the nearest is \"{}\"", *nearest) : fmt::format("there are {}", fmt::join(names, ", "))));
}

}  // namespace caravan::model

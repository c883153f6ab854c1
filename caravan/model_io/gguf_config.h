// The configuration of a Llama in a GGUF file's metadata.
//
//   llama.block_count, context_length, embedding_length, feed_forward_length, attention.head_count, .head_count_kv,
//   .layer_norm_rms_epsilon, .key_length, rope.dimension_count, rope.freq_base     as their names say
//   rope.scaling.type linear, yarn, longrope, with factor, original_context_length, attn_factor, yarn_beta_fast and _slow
//   tensor rope_freqs.weight                                divisors of the frequencies: Llama 3.1's scaling
//   tensors rope_factors_short.weight, _long.weight         longrope's
//   caravan.config      config.json as Caravan wrote it, for what the keys above cannot say
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/checkpoint/gguf.h"
#include "caravan/model_io/hf_config.h"

namespace caravan::model_io {

// The vocabulary's size is the embedding's, the embeddings are tied where there is no output.weight, biases are there
// where their tensors are.  The parameters of Llama 3.1's scaling are found again from the divisors (low_freq_factor 1:
// only ratios are determined); divisors that no such parameters give are kept as longrope factors.  caravan.config
// counts where it agrees with the keys; a warning says when it does not.
// Throws UnsupportedError for another architecture than "llama" (named), mixtures of experts, files in several pieces,
// heads of which only a part is rotated, layers that differ; ConfigError naming the missing keys, or as parse_hf_config;
// FormatError for values of wrong types.
HfConfig read_gguf_config(const checkpoint::GgufFile& file);

// A small tensor that belongs to the configuration.
struct GgufExtraTensor {
  std::string name;
  std::vector<float> values;
};

struct GgufConfig {
  std::vector<checkpoint::GgufEntry> metadata;  // general.* and llama.*, caravan.config
  std::vector<GgufExtraTensor> tensors;         // F32 vectors
  std::vector<std::string> notes;               // what only Caravan will read again: one sentence each
};

// What read_gguf_config gives back as `config`.  `dtype`: what config.json said of the weights; `file_type`: the number
// of llama.cpp's enumeration of mostly used types, `name`: general.name.
GgufConfig format_gguf_config(const HfConfig& config, DType dtype, std::uint32_t file_type, const std::string& name);

}  // namespace caravan::model_io

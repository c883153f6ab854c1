// Hugging Face's config.json, in both dialects: `rope_theta` + `rope_scaling` (before transformers 5) and
// `rope_parameters`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/model/llama.h"

namespace caravan::model_io {

// What config.json says beyond the function itself.
struct HfConfig {
  model::LlamaConfig model;
  std::optional<std::int64_t> bos_token_id;
  std::vector<std::int64_t> eos_token_ids;  // one id or a list of them in the file
  std::optional<std::int64_t> pad_token_id;
  std::optional<DType> dtype;         // `dtype` or `torch_dtype`
  std::vector<std::string> warnings;  // fields that were understood and ignored, one sentence each

  bool operator==(const HfConfig&) const = default;
};

enum class RopeDialect { kRopeScaling, kRopeParameters };

// Reads a config.json's text.  `source` opens every message.  Absent fields have LlamaConfig's defaults in
// transformers. Throws FormatError when the text is no JSON object or a field has the wrong type, ConfigError when
// fields are missing that have no default or contradict each other (each named with its values), UnsupportedError for
// another architecture (named), a rope type or an activation that Llama does not have, or weights quantised in the
// file.
HfConfig parse_hf_config(std::string_view text, const std::string& source);

// Reads DIR/config.json.  Throws FileError when it is missing, else as parse_hf_config.
HfConfig read_hf_config(const std::filesystem::path& directory);

// The text of a config.json for LlamaForCausalLM that parses back to the same config.  `dtype` is that of the weights
// beside it.
std::string format_hf_config(const HfConfig& config, DType dtype, RopeDialect dialect = RopeDialect::kRopeScaling);

// The text of generation_config.json: the special token ids.
std::string format_generation_config(const HfConfig& config);

}  // namespace caravan::model_io

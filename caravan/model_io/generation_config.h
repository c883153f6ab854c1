// Hugging Face's generation_config.json: how a model's makers want it to be sampled.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::model_io {

// What the file says; absent and null are the same.  Fields for other ways of generating (beams, penalties) are ignored
// with a warning when they would change the ids.
struct GenerationConfig {
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<std::int64_t> top_k;
  std::optional<double> top_p;
  std::optional<std::int64_t> max_new_tokens;
  std::optional<std::int64_t> bos_token_id;
  std::vector<std::int64_t> eos_token_ids;  // one id or a list of them in the file
  std::optional<std::int64_t> pad_token_id;
  std::vector<std::string> warnings;  // fields that were understood and ignored, one sentence each

  bool operator==(const GenerationConfig&) const = default;
};

// Reads the text; `source` opens every message.  Throws FormatError when it is no JSON object or a field has the wrong
// type.
GenerationConfig parse_generation_config(std::string_view text, const std::string& source);

// Reads DIR/generation_config.json; a directory without one has an empty GenerationConfig.  Throws FileError when it
// cannot be read, else as parse_generation_config.
GenerationConfig read_generation_config(const std::filesystem::path& directory);

}  // namespace caravan::model_io

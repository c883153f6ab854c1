#include "caravan/model_io/generation_config.h"

#include "caravan/base/file.h"
#include "caravan/model_io/json_fields.h"

namespace caravan::model_io {

namespace {

constexpr std::int64_t kMaxConfigBytes = std::int64_t{16} << 20;

// A number that makes transformers choose other ids, and the value that does not.
struct Changing {
  const char* name;
  double neutral;
};
constexpr Changing kChanging[] = {{"num_beams", 1.0},
                                  {"repetition_penalty", 1.0},
                                  {"no_repeat_ngram_size", 0.0},
                                  {"min_p", 0.0},
                                  {"typical_p", 1.0},
                                  {"epsilon_cutoff", 0.0},
                                  {"eta_cutoff", 0.0},
                                  {"min_length", 0.0},
                                  {"min_new_tokens", 0.0},
                                  {"penalty_alpha", 0.0},
                                  {"guidance_scale", 1.0},
                                  {"top_h", 1.0},
                                  {"encoder_repetition_penalty", 1.0}};

}  // namespace

GenerationConfig parse_generation_config(std::string_view text, const std::string& source) {
  const Json document = parse_json(text, source);
  const Fields fields(document, source);
  GenerationConfig config;
  config.do_sample = fields.boolean("do_sample");
  config.temperature = fields.number("temperature");
  config.top_k = fields.integer("top_k");
  config.top_p = fields.number("top_p");
  config.max_new_tokens = fields.integer("max_new_tokens");
  config.bos_token_id = fields.integer("bos_token_id");
  config.eos_token_ids = fields.integers("eos_token_id");
  config.pad_token_id = fields.integer("pad_token_id");
  for (const Changing& one : kChanging) {
    const double value = fields.number(one.name).value_or(one.neutral);
    if (value != one.neutral) {
      config.warnings.push_back(fmt::format("{}: {} {} is ignored", source, one.name, value));
    }
  }
  return config;
}

GenerationConfig read_generation_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "generation_config.json";
  std::error_code failure;
  if (!std::filesystem::exists(path, failure)) {
    return {};
  }
  return parse_generation_config(read_text_file(path, kMaxConfigBytes), path.string());
}

}  // namespace caravan::model_io

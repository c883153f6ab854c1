// Rotary frequencies and how they are stretched beyond the trained length: six kinds, as pure functions.
//
// Formulas: transformers `modeling_rope_utils.py` and the papers named at each kind.  d is head_dim, i = 0 .. d/2 - 1,
// f_i = theta^(-2 i / d), M = max_position_embeddings, M0 = the original (trained) length.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace caravan::nn {

enum class RopeKind { kDefault, kLinear, kDynamic, kYarn, kLongRope, kLlama3 };

// "default", "linear", "dynamic", "yarn", "longrope", "llama3": config.json's rope_type.
const char* to_string(RopeKind kind);
std::optional<RopeKind> parse_rope_kind(const std::string& name);

// Fields that a kind does not name are ignored by it.
struct RopeConfig {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                          // linear, dynamic, yarn, longrope, llama3; see factor_given
  bool factor_given = false;                    // yarn and longrope derive an absent factor as M / M0
  std::int64_t max_position_embeddings = 2048;  // M
  // M0 of yarn, longrope and llama3; absent means M.
  std::optional<std::int64_t> original_max_position_embeddings;
  std::optional<double> attention_factor;  // yarn, longrope
  std::optional<double> mscale;            // yarn
  std::optional<double> mscale_all_dim;    // yarn
  double beta_fast = 32.0;                 // yarn
  double beta_slow = 1.0;                  // yarn
  bool truncate = true;                    // yarn: round the ramp's ends outwards
  std::vector<double> short_factor;        // longrope, [head_dim / 2]
  std::vector<double> long_factor;         // longrope, [head_dim / 2]
  double low_freq_factor = 1.0;            // llama3
  double high_freq_factor = 4.0;           // llama3

  bool operator==(const RopeConfig&) const = default;
};

// Throws ConfigError naming the field when the kind's fields are missing or contradictory for this head_dim.
void validate(const RopeConfig& config, std::int64_t head_dim);

// The frequencies, rounded to f32 as transformers keeps them, of a sequence of `length` tokens (dynamic and longrope
// depend on it; the others do not).  [head_dim / 2]
//   default   f_i                                                                        Su et al. 2021
//   linear    f_i / factor                                                               Chen et al. 2023
//   dynamic   theta' = theta ((factor S / M) - (factor - 1))^(d / (d - 2)), S = max(length, M)      "NTK-aware"
//   yarn      f_i / factor ramped into f_i between the dimensions of beta_fast and beta_slow turns  Peng et al. 2023
//   longrope  f_i / long_factor_i when length > M0, else f_i / short_factor_i                       Ding et al. 2024
//   llama3    f_i / factor for wavelengths above M0 / low, f_i below M0 / high, blended between     Llama 3.1
std::vector<float> rope_frequencies(const RopeConfig& config, std::int64_t head_dim, std::int64_t length);

// What cos and sin are multiplied by: yarn and longrope; 1 for the others.
double rope_attention_scaling(const RopeConfig& config);

// Whether two sequences of these lengths may have different frequencies.
bool depends_on_length(RopeKind kind);

// Whether sequences of these two lengths have the same frequencies.
bool same_frequencies(const RopeConfig& config, std::int64_t head_dim, std::int64_t a, std::int64_t b);

// The longest sequence the model is meant for: M where it already counts the stretching (M > M0) or there is none; else
// factor * M0; for dynamic, which stretches to whatever length it meets, a bound that nothing reaches.
std::int64_t max_sequence_length(const RopeConfig& config);

}  // namespace caravan::nn

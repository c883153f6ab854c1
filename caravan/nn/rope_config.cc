#include "caravan/nn/rope_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "caravan/base/error.h"

namespace caravan::nn {

namespace {

// transformers keeps exponents, powers and frequencies in f32; the same roundings here keep angles at long positions
// equal.
std::vector<float> inverse_powers(double theta, std::int64_t head_dim, const std::vector<double>& stretch = {}) {
  std::vector<float> result(static_cast<std::size_t>(head_dim / 2));
  const double base = static_cast<float>(theta);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    float power = static_cast<float>(std::pow(base, static_cast<double>(exponent)));
    if (!stretch.empty()) {
      power = static_cast<float>(stretch[i]) * power;
    }
    result[i] = 1.0F / power;
  }
  return result;
}

// M0: only three kinds know a trained length apart from M.
std::int64_t original_length(const RopeConfig& config) {
  const bool has_one =
      config.kind == RopeKind::kYarn || config.kind == RopeKind::kLongRope || config.kind == RopeKind::kLlama3;
  if (!has_one) {
    return config.max_position_embeddings;
  }
  return config.original_max_position_embeddings.value_or(config.max_position_embeddings);
}

double stretch_factor(const RopeConfig& config) {
  const bool derives = config.kind == RopeKind::kYarn || config.kind == RopeKind::kLongRope;
  if (config.factor_given || !derives) {
    return config.factor;
  }
  return static_cast<double>(config.max_position_embeddings) / static_cast<double>(original_length(config));
}

std::vector<float> dynamic_frequencies(const RopeConfig& config, std::int64_t head_dim, std::int64_t length) {
  const double limit = static_cast<double>(config.max_position_embeddings);
  const double seen = std::max(static_cast<double>(length), limit);
  const double growth = config.factor * seen / limit - (config.factor - 1.0);
  const double d = static_cast<double>(head_dim);
  return inverse_powers(config.theta * std::pow(growth, d / (d - 2.0)), head_dim);
}

// The dimension that makes `turns` full rotations within the trained length (Peng et al. 2023, eq. 17 and its inverse).
double dimension_of_turns(const RopeConfig& config, std::int64_t head_dim, double turns) {
  const double length = static_cast<double>(original_length(config));
  return static_cast<double>(head_dim) * std::log(length / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(config.theta));
}

std::vector<float> yarn_frequencies(const RopeConfig& config, std::int64_t head_dim) {
  double low = dimension_of_turns(config, head_dim, config.beta_fast);
  double high = dimension_of_turns(config, head_dim, config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) {
    high += 0.001;  // transformers' guard against a ramp of no width
  }
  const std::vector<double> factors(static_cast<std::size_t>(head_dim / 2), stretch_factor(config));
  const std::vector<float> stretched = inverse_powers(config.theta, head_dim, factors);
  std::vector<float> result = inverse_powers(config.theta, head_dim);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const float ramp =
        std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0F, 1.0F);
    const float kept = 1.0F - ramp;
    result[i] = stretched[i] * (1.0F - kept) + result[i] * kept;
  }
  return result;
}

std::vector<float> llama3_frequencies(const RopeConfig& config, std::int64_t head_dim) {
  const float length = static_cast<float>(original_length(config));
  const float low_wavelength = length / static_cast<float>(config.low_freq_factor);
  const float high_wavelength = length / static_cast<float>(config.high_freq_factor);
  const float factor = static_cast<float>(config.factor);
  std::vector<float> result = inverse_powers(config.theta, head_dim);
  for (float& frequency : result) {
    const float wavelength = 2.0F * std::numbers::pi_v<float> / frequency;
    if (wavelength > low_wavelength) {
      frequency /= factor;
    } else if (wavelength >= high_wavelength && low_wavelength > high_wavelength) {
      const float blend = (length / wavelength - static_cast<float>(config.low_freq_factor)) /
                          static_cast<float>(config.high_freq_factor - config.low_freq_factor);
      frequency = (1.0F - blend) * frequency / factor + blend * frequency;
    }
  }
  return result;
}

double yarn_scaling(const RopeConfig& config) {
  const auto magnitude = [](double scale, double weight) {
    return scale <= 1.0 ? 1.0 : 0.1 * weight * std::log(scale) + 1.0;
  };
  const double factor = stretch_factor(config);
  // A zero counts as absent, as in transformers.
  if (config.mscale.value_or(0.0) != 0.0 && config.mscale_all_dim.value_or(0.0) != 0.0) {
    return magnitude(factor, *config.mscale) / magnitude(factor, *config.mscale_all_dim);
  }
  return magnitude(factor, 1.0);
}

double longrope_scaling(const RopeConfig& config) {
  const double factor = stretch_factor(config);
  if (factor <= 1.0) {
    return 1.0;
  }
  return std::sqrt(1.0 + std::log(factor) / std::log(static_cast<double>(original_length(config))));
}

void require(bool holds, const std::string& message) {
  if (!holds) {
    throw ConfigError("rope: " + message);
  }
}

void require_positive(const char* field, double value) {
  require(std::isfinite(value) && value > 0.0, fmt::format("{} must be a positive number, found {}", field, value));
}

void validate_list(const char* field, const std::vector<double>& list, std::int64_t head_dim) {
  require(static_cast<std::int64_t>(list.size()) == head_dim / 2,
          fmt::format("longrope needs {} of {} numbers (head_dim / 2), found {}", field, head_dim / 2, list.size()));
  for (const double one : list) {
    require_positive(field, one);
  }
}

void validate_fields(const RopeConfig& config, std::int64_t head_dim) {
  require_positive("rope_theta", config.theta);
  require(config.max_position_embeddings >= 1,
          fmt::format("max_position_embeddings must be at least 1, found {}", config.max_position_embeddings));
  if (config.original_max_position_embeddings) {
    require(*config.original_max_position_embeddings >= 1,
            fmt::format("original_max_position_embeddings must be at least 1, found {}",
                        *config.original_max_position_embeddings));
  }
  if (config.kind == RopeKind::kDefault) {
    return;
  }
  require_positive("factor", stretch_factor(config));
  if (config.kind == RopeKind::kDynamic) {
    require(head_dim > 2, fmt::format("dynamic scaling needs a head_dim above 2, found {}", head_dim));
    require(config.factor >= 1.0, fmt::format("dynamic scaling needs a factor of at least 1, found {}", config.factor));
  }
  if (config.kind == RopeKind::kYarn) {
    require(config.theta != 1.0, "yarn needs a rope_theta other than 1");
    require_positive("beta_fast", config.beta_fast);
    require_positive("beta_slow", config.beta_slow);
    require(config.beta_fast >= config.beta_slow,
            fmt::format("beta_fast ({}) must not be below beta_slow ({})", config.beta_fast, config.beta_slow));
  }
  if (config.kind == RopeKind::kLongRope) {
    validate_list("short_factor", config.short_factor, head_dim);
    validate_list("long_factor", config.long_factor, head_dim);
    require(config.attention_factor.has_value() || original_length(config) > 1,
            "longrope needs original_max_position_embeddings above 1 or an attention_factor");
  }
  if (config.kind == RopeKind::kLlama3) {
    require_positive("low_freq_factor", config.low_freq_factor);
    require_positive("high_freq_factor", config.high_freq_factor);
    require(config.high_freq_factor >= config.low_freq_factor,
            fmt::format("high_freq_factor ({}) must not be below low_freq_factor ({})", config.high_freq_factor,
                        config.low_freq_factor));
  }
  if (config.attention_factor) {
    require_positive("attention_factor", *config.attention_factor);
  }
  require_positive("the attention scaling that follows from its fields", rope_attention_scaling(config));
}

// Frequencies that overflow would make every position NaN.
void require_finite_frequencies(const RopeConfig& config, std::int64_t head_dim) {
  for (const std::int64_t length : {std::int64_t{1}, config.max_position_embeddings + 1}) {
    for (const float frequency : rope_frequencies(config, head_dim, length)) {
      require(std::isfinite(frequency),
              fmt::format("rope_theta {} and its scaling give frequencies that are not finite", config.theta));
    }
  }
}

}  // namespace

const char* to_string(RopeKind kind) {
  switch (kind) {
    case RopeKind::kDefault:
      return "default";
    case RopeKind::kLinear:
      return "linear";
    case RopeKind::kDynamic:
      return "dynamic";
    case RopeKind::kYarn:
      return "yarn";
    case RopeKind::kLongRope:
      return "longrope";
    case RopeKind::kLlama3:
      return "llama3";
  }
  return "unknown";
}

std::optional<RopeKind> parse_rope_kind(const std::string& name) {
  for (const RopeKind kind : {RopeKind::kDefault, RopeKind::kLinear, RopeKind::kDynamic, RopeKind::kYarn,
                              RopeKind::kLongRope, RopeKind::kLlama3}) {
    if (name == to_string(kind)) {
      return kind;
    }
  }
  return std::nullopt;
}

void validate(const RopeConfig& config, std::int64_t head_dim) {
  validate_fields(config, head_dim);
  require_finite_frequencies(config, head_dim);
}

std::vector<float> rope_frequencies(const RopeConfig& config, std::int64_t head_dim, std::int64_t length) {
  switch (config.kind) {
    case RopeKind::kDefault:
      return inverse_powers(config.theta, head_dim);
    case RopeKind::kLinear: {
      std::vector<float> result = inverse_powers(config.theta, head_dim);
      std::ranges::for_each(result, [&](float& f) { f /= static_cast<float>(config.factor); });
      return result;
    }
    case RopeKind::kDynamic:
      return dynamic_frequencies(config, head_dim, length);
    case RopeKind::kYarn:
      return yarn_frequencies(config, head_dim);
    case RopeKind::kLongRope:
      return inverse_powers(config.theta, head_dim,
                            length > original_length(config) ? config.long_factor : config.short_factor);
    case RopeKind::kLlama3:
      return llama3_frequencies(config, head_dim);
  }
  return {};
}

double rope_attention_scaling(const RopeConfig& config) {
  if (config.kind != RopeKind::kYarn && config.kind != RopeKind::kLongRope) {
    return 1.0;
  }
  if (config.attention_factor) {
    return *config.attention_factor;
  }
  return config.kind == RopeKind::kYarn ? yarn_scaling(config) : longrope_scaling(config);
}

bool depends_on_length(RopeKind kind) {
  return kind == RopeKind::kDynamic || kind == RopeKind::kLongRope;
}

bool same_frequencies(const RopeConfig& config, std::int64_t head_dim, std::int64_t a, std::int64_t b) {
  return !depends_on_length(config.kind) ||
         rope_frequencies(config, head_dim, a) == rope_frequencies(config, head_dim, b);
}

std::int64_t max_sequence_length(const RopeConfig& config) {
  if (config.kind == RopeKind::kDefault) {
    return config.max_position_embeddings;
  }
  if (config.kind == RopeKind::kDynamic) {
    return std::numeric_limits<std::int64_t>::max() / 4;
  }
  if (config.max_position_embeddings > original_length(config)) {
    return config.max_position_embeddings;
  }
  const double stretched = std::ceil(stretch_factor(config) * static_cast<double>(original_length(config)));
  constexpr double kLargest = 4.0e18;  // below 2^62: what follows adds lengths
  return std::max(config.max_position_embeddings, static_cast<std::int64_t>(std::min(stretched, kLargest)));
}

}  // namespace caravan::nn

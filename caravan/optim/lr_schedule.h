// The learning rate over the steps: warm-up, stable, decay, with torchtitan's numbers exactly.
//
// torchtitan 0.2 components/lr_scheduler.py (a factor of the optimizer's lr), here as one pure function:
//   s < warmup               (s + 1) / warmup
//   s < warmup + stable      1
//   otherwise                p = (s + 1 - warmup - stable) / decay;  linear 1 - p | sqrt 1 - sqrt(p) | cosine (1 + cos(pi p)) / 2,
//                            stretched onto [min_factor, 1]
// with stable = total + 1 - warmup - decay: the extra step keeps the last one above the minimum.
#pragma once

#include <cstdint>
#include <optional>

namespace caravan::optim {

enum class Decay { kLinear, kSqrt, kCosine };

struct LrSchedule {
  std::int64_t total_steps = 10000;
  std::int64_t warmup_steps = 200;
  std::optional<double> decay_ratio = std::nullopt;  // share of the steps that decay; absent: all after the warm-up
  Decay decay = Decay::kLinear;
  double min_factor = 0.0;

  bool operator==(const LrSchedule&) const = default;
};

// Throws ConfigError naming the field when a number is impossible.
void validate(const LrSchedule& schedule);

// What the optimizer's lr is multiplied by in step `step`, counted from 0.
double lr_factor(const LrSchedule& schedule, std::int64_t step);

}  // namespace caravan::optim

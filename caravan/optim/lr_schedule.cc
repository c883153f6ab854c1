#include "caravan/optim/lr_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "caravan/base/error.h"

namespace caravan::optim {

namespace {

struct Phases {
  std::int64_t warmup, stable, decay;
};

// The roundings and clamps in torchtitan's order.
Phases phases_of(const LrSchedule& schedule) {
  const std::int64_t warmup = std::min(schedule.warmup_steps, schedule.total_steps);
  std::int64_t decay = schedule.total_steps - warmup;
  if (schedule.decay_ratio) {
    // Python's round: halves go to the even neighbour, as nearbyint does.
    const auto wanted =
        static_cast<std::int64_t>(std::nearbyint(static_cast<double>(schedule.total_steps) * *schedule.decay_ratio));
    decay = std::min(wanted, decay);
  }
  return {warmup, schedule.total_steps + 1 - warmup - decay, decay};
}

double decayed(Decay decay, double progress) {
  switch (decay) {
    case Decay::kLinear:
      return 1.0 - progress;
    case Decay::kSqrt:
      return 1.0 - std::sqrt(progress);
    case Decay::kCosine:
      return 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  }
  return 1.0;
}

}  // namespace

void validate(const LrSchedule& schedule) {
  if (schedule.total_steps < 1) {
    throw ConfigError(fmt::format("lr_scheduler: steps must be at least 1, found {}", schedule.total_steps));
  }
  if (schedule.warmup_steps < 0) {
    throw ConfigError(fmt::format("lr_scheduler: warmup_steps must not be negative, found {}", schedule.warmup_steps));
  }
  const double ratio = schedule.decay_ratio.value_or(0.0);
  if (!(ratio >= 0.0 && ratio <= 1.0)) {
    throw ConfigError(fmt::format("lr_scheduler: decay_ratio must be between 0 and 1, found {}", ratio));
  }
  if (!(schedule.min_factor >= 0.0 && schedule.min_factor <= 1.0)) {
    throw ConfigError(
        fmt::format("lr_scheduler: min_lr_factor must be between 0 and 1, found {}", schedule.min_factor));
  }
}

double lr_factor(const LrSchedule& schedule, std::int64_t step) {
  const Phases phases = phases_of(schedule);
  if (step < phases.warmup) {
    return static_cast<double>(step + 1) / static_cast<double>(phases.warmup);
  }
  if (step < phases.warmup + phases.stable) {
    return 1.0;
  }
  const double progress = static_cast<double>(step + 1 - phases.warmup - phases.stable) /
                          static_cast<double>(std::max<std::int64_t>(1, phases.decay));
  const double factor = decayed(schedule.decay, std::min(1.0, progress));
  return schedule.min_factor + (1.0 - schedule.min_factor) * factor;
}

}  // namespace caravan::optim

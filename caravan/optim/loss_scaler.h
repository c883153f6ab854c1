// Dynamic loss scaling for gradients in float16, whose smallest number is 6e-8 (Micikevicius et al. 2018).
#pragma once

#include <cstdint>

namespace caravan::optim {

// The rule and the numbers of torch.amp.GradScaler: halved by a step whose gradients are not finite, doubled after so many
// steps in a row whose gradients are.
struct LossScaler {
  double scale = 65536.0;  // a power of two, so that scaling rounds nothing
  std::int64_t growth_interval = 2000;
  std::int64_t good_steps = 0;  // in a row since scale changed

  // The step's gradients were finite, or the step was skipped because they were not.
  void update(bool finite) {
    constexpr double kMost = 16777216.0;  // beyond it nothing that float16 can hold is gained
    good_steps = finite ? good_steps + 1 : 0;
    if (!finite) {
      scale /= 2;
    } else if (good_steps == growth_interval) {
      scale = scale < kMost ? scale * 2 : scale;
      good_steps = 0;
    }
  }

  // Below this no gradient of the model fits: it diverges, or float16 is not for it.
  static constexpr double kLeast = 1.0 / 65536.0;
};

}  // namespace caravan::optim

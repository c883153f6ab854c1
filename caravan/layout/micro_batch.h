// One packed batch of token ids with what each is to predict: what data makes and the executor runs.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/layout/sequence_layout.h"

namespace caravan {

// A target that is not counted (torch's ignore_index).
inline constexpr std::int32_t kIgnoredTarget = -100;

struct MicroBatch {
  SequenceLayout layout;
  std::vector<std::int32_t> ids;      // [rows], negative for padding
  std::vector<std::int32_t> targets;  // [rows], kIgnoredTarget where nothing is predicted
};

// Targets that count.
std::int64_t valid_targets(const std::vector<MicroBatch>& batches);

}  // namespace caravan

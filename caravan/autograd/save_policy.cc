#include "caravan/autograd/save_policy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "caravan/base/error.h"

namespace caravan::autograd {

bool checkpointed(const SavePolicy& policy, std::int64_t layer) {
  switch (policy.mode) {
    case CheckpointMode::kNone:
      return false;
    case CheckpointMode::kEveryNth:
      if (policy.every < 1) {
        throw ConfigError(
            fmt::format("activation checkpointing: every n-th layer needs n of at least 1, found {}", policy.every));
      }
      return (layer + 1) % policy.every == 0;
    case CheckpointMode::kFull:
    case CheckpointMode::kSelective:
      return true;
  }
  return false;
}

bool keeps(const SavePolicy& policy, const std::string& op, std::int64_t product) {
  if (policy.mode != CheckpointMode::kSelective || !policy.save.contains(op)) {
    return false;
  }
  return op != "linear" || product % 2 == 1;
}

std::string to_string(const SavePolicy& policy) {
  switch (policy.mode) {
    case CheckpointMode::kNone:
      return "none";
    case CheckpointMode::kFull:
      return "full";
    case CheckpointMode::kEveryNth:
      return fmt::format("every {}", policy.every);
    case CheckpointMode::kSelective:
      return fmt::format("selective: {}{}", fmt::join(policy.save, ", "),
                         policy.save.contains("linear") ? " (every second one)" : "");
  }
  return "unknown";
}

}  // namespace caravan::autograd

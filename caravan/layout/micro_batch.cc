#include "caravan/layout/micro_batch.h"

#include <algorithm>

namespace caravan {

std::int64_t valid_targets(const std::vector<MicroBatch>& batches) {
  std::int64_t count = 0;
  for (const MicroBatch& batch : batches) {
    count += std::ranges::count_if(batch.targets, [](std::int32_t t) { return t != kIgnoredTarget; });
  }
  return count;
}

}  // namespace caravan

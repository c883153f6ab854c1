#include "caravan/layout/param_spec.h"

namespace caravan {

std::int64_t parameter_count(const std::vector<ParamSpec>& specs) {
  std::int64_t count = 0;
  for (const ParamSpec& spec : specs) {
    if (spec.alias_of.empty()) {
      count += spec.shape.elements();
    }
  }
  return count;
}

}  // namespace caravan

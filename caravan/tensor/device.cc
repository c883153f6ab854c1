#include "caravan/tensor/device.h"

namespace caravan {

std::string to_string(const Device& device) {
  switch (device.kind) {
    case DeviceKind::kHost:
      return "host";
    case DeviceKind::kMeta:
      return "meta";
    case DeviceKind::kCuda:
      return "cuda:" + std::to_string(device.index);
  }
  return "unknown device";
}

}  // namespace caravan

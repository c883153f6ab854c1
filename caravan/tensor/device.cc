#include "caravan/tensor/device.h"

#include <charconv>

#include "caravan/base/error.h"

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

Device parse_device(const std::string& word) {
  if (word == "cpu") {
    return {};
  }
  Device device{DeviceKind::kCuda, 0};
  const std::string prefix = "cuda";
  const char* const end = word.data() + word.size();
  const bool numbered = word.starts_with(prefix + ":") && word.size() > prefix.size() + 1;
  if (word == prefix || (numbered && std::from_chars(word.data() + prefix.size() + 1, end, device.index).ptr == end &&
                         device.index >= 0)) {
    return device;
  }
  throw InputError("there is no device \"" + word + "\"; devices are cpu, cuda (the first GPU) and cuda:N");
}

}  // namespace caravan

// Where bytes live.
#pragma once

#include <string>

namespace caravan {

enum class DeviceKind {
  kHost,
  kMeta,  // nowhere: addresses are accounted and never touched (the dry run)
  kCuda,  // an NVIDIA GPU
};

struct Device {
  DeviceKind kind = DeviceKind::kHost;
  int index = 0;

  bool operator==(const Device&) const = default;
};

// "host", "meta", "cuda:0"
std::string to_string(const Device& device);

}  // namespace caravan

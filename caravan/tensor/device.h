// Where bytes live.
#pragma once

#include <string>

namespace caravan {

enum class DeviceKind {
  kHost,
  kMeta,  // nowhere: addresses are accounted and never touched (the dry run); the index is of the GPU it stands for
  kCuda,  // an NVIDIA GPU
};

struct Device {
  DeviceKind kind = DeviceKind::kHost;
  int index = 0;

  bool operator==(const Device&) const = default;
};

// "host", "meta", "cuda:0"
std::string to_string(const Device& device);

// The device of a word of the command line: "cpu", "cuda" (its first) or "cuda:N".  Throws InputError for another word.
Device parse_device(const std::string& word);

}  // namespace caravan

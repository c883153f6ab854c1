// The backend that a test program tries: the processor's, or with CARAVAN_TEST_DEVICE=cuda a GPU's (in a build with CUDA,
// ctest runs the programs of caravan_cuda_test once more with it).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "caravan/ops/context.h"

namespace caravan::test {

inline bool on_cuda() {
  const char* device = std::getenv("CARAVAN_TEST_DEVICE");
  return device != nullptr && std::string_view(device) == "cuda";
}

inline ops::Backend fast_backend() {
  return on_cuda() ? ops::Backend::kCuda : ops::Backend::kCpu;
}

// Of a test's context: a GPU is not taken as a whole, since several contexts live side by side.
inline std::int64_t memory_capacity() {
  return on_cuda() ? std::int64_t{1} << 30 : 0;
}

}  // namespace caravan::test

// The CUDA runtime and the one way to look at its answers.  For this room's device files and ops/cuda only.
#pragma once

#ifdef CARAVAN_CUDA_EMULATED
#include "caravan/tensor/cuda_emulation.h"
#else
#include <cuda_runtime.h>
#endif

#include <string>

#include "caravan/base/error.h"

namespace caravan {

// Throws DeviceError "CUDA: <what>: <CUDA's words>" unless `error` is success.
inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    throw DeviceError(std::string("CUDA: ") + what + ": " + cudaGetErrorString(error));
  }
}

}  // namespace caravan

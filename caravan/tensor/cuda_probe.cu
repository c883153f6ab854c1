#include "caravan/tensor/cuda_probe.h"

#include "caravan/tensor/cuda_api.h"

namespace caravan::cuda_memory {
namespace {

__global__ void probe_kernel() {}

}  // namespace

const void* probe_kernel_address() {
  return reinterpret_cast<const void*>(probe_kernel);
}

}  // namespace caravan::cuda_memory

// How kernels are started, and what they all need.  For the .cu files of ops/cuda only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "caravan/ops/cuda/state.h"

#ifdef CARAVAN_CUDA_EMULATED
#define CARAVAN_DYNAMIC_SHARED(type, name) type* name = caravan::cuda_emulation::dynamic_shared<type>()
#else
// A block's dynamic shared memory as elements of `type`.
#define CARAVAN_DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) unsigned char caravan_shared[]; \
  type* name = reinterpret_cast<type*>(caravan_shared)
#endif

namespace caravan::ops::cuda {

inline constexpr int kWarp = 32;

// What a grid's second and third axis may have; the first has 2^31 - 1.
inline constexpr unsigned kMostOfAxis = 65535;

// Starts `kernel` on the calling thread's stream.  `what` names it in errors.  Arguments are converted to the kernel's
// parameter types.  More than 48 KiB of dynamic shared memory is asked for here.
template <typename... Parameters, typename... Arguments>
void launch(const char* what, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            Arguments&&... arguments) {
#ifdef CARAVAN_CUDA_EMULATED
  (void)what;
  cuda_emulation::launch(grid, block, shared_bytes,
                         [kernel, ... values = static_cast<Parameters>(arguments)] { kernel(values...); });
#else
  constexpr std::size_t kDefaultLimit = 48 * 1024;
  if (shared_bytes > kDefaultLimit) {
    check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               what);
  }
  kernel<<<grid, block, shared_bytes, stream()>>>(static_cast<Parameters>(arguments)...);
  check_cuda(cudaGetLastError(), what);
#endif
}

// Blocks of `each` that cover `count`, at least one.
inline unsigned blocks_for(std::int64_t count, std::int64_t each) {
  return static_cast<unsigned>(std::max<std::int64_t>(1, (count + each - 1) / each));
}

}  // namespace caravan::ops::cuda

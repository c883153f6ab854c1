// A kernel to ask about.  For cuda_memory.cc only.
#pragma once

namespace caravan::cuda_memory {

// Of a kernel that does nothing and was compiled as all others of this build: where it has code, they have.
const void* probe_kernel_address();

}  // namespace caravan::cuda_memory

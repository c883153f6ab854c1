// What a context keeps for its GPU between calls.
#pragma once

#include <cstdint>
#include <memory>

#include "caravan/ops/context.h"
#include "caravan/tensor/cuda_api.h"

namespace caravan::ops {

// cuBLASLt's handle and the algorithms it chose (ops/cuda/gemm.h).
class GemmPlans;
// cuDNN's handle, its graphs, and ranges that stand on the device (ops/cuda/attention_plans.h).
class AttentionPlans;

class CudaState {
 public:
  // In a dry run the GPU that it stands for is asked, so that the plan is exact where the work will run.  Where it
  // is not there, no other is asked: it is taken for a Hopper as the members say, with cuDNN.
  explicit CudaState(const Device& device);

  bool has_gpu = false;

  int multiprocessors = 132;
  int major = 9;  // of the compute capability
  int minor = 0;
  std::int64_t shared_bytes_of_block = 227 * 1024;  // the most that a kernel may ask for
  std::int64_t plans = 0;                           // made so far

  std::shared_ptr<GemmPlans> gemm;            // null until the first product
  std::shared_ptr<AttentionPlans> attention;  // null until the first attention
};

namespace cuda {

// The context's state, made on first use.
CudaState& state(Context& ctx);

// What a recorded graph reads besides its body's tensors: held by the graph from now on.  A no-op where nothing is
// recorded.
void keep_for_graph(Context& ctx, std::shared_ptr<const void> used);
// Throws NotRecordableError while a graph is recorded: `what` should have been made before.
void require_not_recording(const Context& ctx, const char* what);

// Everything runs on the calling thread's own stream, in the order it was asked for (tensor/cuda_memory.h).
inline cudaStream_t stream() {
  return cudaStreamPerThread;
}

// Whether what the stream is asked for becomes part of a graph, so that nothing may wait for it.
bool is_recording();

}  // namespace cuda
}  // namespace caravan::ops

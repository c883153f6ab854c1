#include "caravan/ops/cuda/state.h"

#include <string>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/ops/args.h"
#include "caravan/ops/graph.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan::ops {

CudaState::CudaState(const Device& device) {
  if (device.kind != DeviceKind::kCuda && !cuda_memory::refusal(device.index).empty()) {
    return;
  }
  has_gpu = true;
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device.index), "reading the device's properties");
  multiprocessors = properties.multiProcessorCount;
  major = properties.major;
  minor = properties.minor;
  shared_bytes_of_block = static_cast<std::int64_t>(properties.sharedMemPerBlockOptin);
}

namespace cuda {

CudaState& state(Context& ctx) {
  if (ctx.cuda == nullptr) {
    ctx.cuda = std::make_shared<CudaState>(ctx.allocator->device());
  }
  return *ctx.cuda;
}

void keep_for_graph(Context& ctx, std::shared_ptr<const void> used) {
  if (ctx.kept != nullptr) {
    ctx.kept->push_back(std::move(used));
  }
}

void require_not_recording(const Context& ctx, const char* what) {
  if (ctx.kept != nullptr) {
    throw NotRecordableError(std::string("a graph cannot be recorded: ") + what + " was not made before");
  }
}

void require_built() {}

void synchronize(Context& ctx) {
  use_device(ctx);
  check_cuda(cudaStreamSynchronize(stream()), "waiting for the device");
}

bool is_recording() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream(), &status) != cudaSuccess || status != cudaStreamCaptureStatusNone;
}

std::shared_ptr<void> record(Context& ctx, const std::function<void()>& body) {
  use_device(ctx);
  check_cuda(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "beginning to record a graph");
  cudaGraph_t graph = nullptr;
  try {
    body();
  } catch (...) {
    (void)cudaStreamEndCapture(stream(), &graph);
    (void)cudaGetLastError();
    if (graph != nullptr) {
      (void)cudaGraphDestroy(graph);
    }
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream(), &graph), "recording a graph");
  cudaGraphExec_t exec = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
  (void)cudaGraphDestroy(graph);
  check_cuda(error, "making a graph ready");
  return {static_cast<void*>(exec), [](void* made) { (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(made)); }};
}

void run_recorded(Context& ctx, const std::shared_ptr<void>& recorded) {
  use_device(ctx);
  check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recorded.get()), stream()), "running a graph");
}

std::int64_t plans_made(const CudaState& state) {
  return state.plans;
}

}  // namespace cuda
}  // namespace caravan::ops

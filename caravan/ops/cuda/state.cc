#include "caravan/ops/cuda/state.h"

#include "caravan/ops/args.h"

namespace caravan::ops {

CudaState::CudaState(const Device& device) {
  if (device.kind != DeviceKind::kCuda) {
    return;
  }
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device.index), "reading the device's properties");
  multiprocessors = properties.multiProcessorCount;
  major = properties.major;
  minor = properties.minor;
}

namespace cuda {

CudaState& state(Context& ctx) {
  if (ctx.cuda == nullptr) {
    ctx.cuda = std::make_shared<CudaState>(ctx.allocator->device());
  }
  return *ctx.cuda;
}

void require_built() {}

void synchronize(Context& ctx) {
  check_cuda(cudaSetDevice(ctx.allocator->device().index), "choosing the device");
  check_cuda(cudaStreamSynchronize(stream()), "waiting for the device");
}

std::int64_t plans_made(const CudaState& state) {
  return state.plans;
}

}  // namespace cuda
}  // namespace caravan::ops

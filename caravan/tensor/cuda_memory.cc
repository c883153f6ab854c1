#include "caravan/tensor/cuda_memory.h"

#include <fmt/format.h>

#include <utility>

#include "caravan/base/error.h"
#include "caravan/tensor/cuda_api.h"
#include "caravan/tensor/cuda_probe.h"

namespace caravan::cuda_memory {
namespace {

constexpr int kOldestMajor = 8;  // Ampere: the first with bf16 in its matrix units

// The device that use() last chose for this thread.
int& device_of_thread() {
  static thread_local int device = -1;
  return device;
}

// What CUDA says when it looks for a kernel's code for the device.
cudaError_t probe(int index) {
  int before = 0;
  cudaError_t error = cudaGetDevice(&before);
  if (error == cudaSuccess) {
    error = cudaSetDevice(index);
  }
  cudaFuncAttributes attributes{};
  if (error == cudaSuccess) {
    error = cudaFuncGetAttributes(&attributes, probe_kernel_address());
  }
  (void)cudaSetDevice(before);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
  }
  return error;
}

}  // namespace

void use(int index) {
  int& now = device_of_thread();
  if (now != index) {
    now = -1;
    check_cuda(cudaSetDevice(index), "choosing the device");
    now = index;
  }
}

std::string refusal(int index) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  // The runtime gives one error for a driver that is too old and for none at all; the version of none is 0.
  int driver = 0;
  if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0) {
    return "the NVIDIA driver of this machine is older than this build's CUDA asks for (580 or later for CUDA 13); "
           "update it, or run with --device cpu";
  }
  if (error != cudaSuccess || count == 0) {
    (void)cudaGetLastError();
    return fmt::format("no CUDA device can be used here ({}); run with --device cpu",
                       error == cudaSuccess                   ? "there is none"
                       : error == cudaErrorInsufficientDriver ? "there is no NVIDIA driver"
                                                              : cudaGetErrorString(error));
  }
  if (index < 0 || index >= count) {
    return fmt::format("cuda:{} was asked for and this machine has {} CUDA device{}, cuda:0{}", index, count,
                       count == 1 ? "" : "s", count == 1 ? "" : fmt::format(" to cuda:{}", count - 1));
  }
  cudaDeviceProp properties{};
  const cudaError_t asked = cudaGetDeviceProperties(&properties, index);
  if (asked != cudaSuccess) {
    (void)cudaGetLastError();
    return fmt::format("cuda:{} does not answer ({}); run with --device cpu", index, cudaGetErrorString(asked));
  }
  if (properties.major < kOldestMajor) {
    return fmt::format(
        "cuda:{} ({}) has compute capability {}.{}, and kernels are there from {}.0 on; run with --device cpu", index,
        properties.name, properties.major, properties.minor, kOldestMajor);
  }
  const cudaError_t probed = probe(index);
  if (probed == cudaErrorNoKernelImageForDevice || probed == cudaErrorInvalidDeviceFunction ||
      probed == cudaErrorUnsupportedPtxVersion) {
    return fmt::format(
        "cuda:{} ({}) has the unsupported architecture {}.{}, and this program was built for {}; build it with "
        "-DCMAKE_CUDA_ARCHITECTURES={}{}, or run with --device cpu",
        index, properties.name, properties.major, properties.minor, CARAVAN_CUDA_BUILT_FOR, properties.major,
        properties.minor);
  }
  if (probed != cudaSuccess) {
    return fmt::format("cuda:{} does not answer ({}); run with --device cpu", index, cudaGetErrorString(probed));
  }
  return {};
}

std::string describe(int index) {
  if (const std::string why = refusal(index); !why.empty()) {
    throw UnsupportedError(why);
  }
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, index), "reading the device's properties");
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  return fmt::format("{}, {} multiprocessors, compute capability {}.{}, {:.0f} GiB", properties.name,
                     properties.multiProcessorCount, properties.major, properties.minor,
                     static_cast<double>(properties.totalGlobalMem) / kGiB);
}

std::int64_t free_bytes(int index) {
  if (const std::string why = refusal(index); !why.empty()) {
    throw UnsupportedError(why);
  }
  use(index);
  std::size_t free = 0;
  std::size_t total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "asking how much memory is free");
  return static_cast<std::int64_t>(free);
}

std::byte* reserve(int index, std::int64_t bytes) {
  use(index);
  void* base = nullptr;
  const cudaError_t error = cudaMalloc(&base, static_cast<std::size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return nullptr;
  }
  check_cuda(error, "taking memory");
  return static_cast<std::byte*>(base);
}

void release(int index, std::byte* base) {
  // Called where nothing may be thrown; what fails here has failed, and said so, before.
  device_of_thread() = cudaSetDevice(index) == cudaSuccess ? index : -1;
  (void)cudaFree(base);
}

void copy_out(int index, std::byte* dst, const std::byte* src, std::int64_t pitch, std::int64_t width,
              std::int64_t rows) {
  use(index);
  const auto size = [](std::int64_t bytes) { return static_cast<std::size_t>(bytes); };
  if (rows == 1 || pitch == width) {
    check_cuda(cudaMemcpyAsync(dst, src, size(width * rows), cudaMemcpyDeviceToHost, cudaStreamPerThread),
               "copying from the device");
  } else {
    check_cuda(cudaMemcpy2DAsync(dst, size(width), src, size(pitch), size(width), size(rows), cudaMemcpyDeviceToHost,
                                 cudaStreamPerThread),
               "copying from the device");
  }
  check_cuda(cudaStreamSynchronize(cudaStreamPerThread), "waiting for the device");
}

class LateCopy {
 public:
  explicit LateCopy(std::int64_t bytes) {
    check_cuda(cudaHostAlloc(&bytes_, static_cast<std::size_t>(bytes), cudaHostAllocDefault), "pinning host memory");
    const cudaError_t error = cudaEventCreateWithFlags(&done_, cudaEventDisableTiming);
    if (error != cudaSuccess) {
      (void)cudaFreeHost(bytes_);
      check_cuda(error, "making an event");
    }
  }
  ~LateCopy() {
    (void)cudaEventDestroy(done_);
    (void)cudaFreeHost(bytes_);
  }
  LateCopy(const LateCopy&) = delete;
  LateCopy& operator=(const LateCopy&) = delete;

  void start(const std::byte* src, std::int64_t bytes) {
    check_cuda(
        cudaMemcpyAsync(bytes_, src, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, cudaStreamPerThread),
        "copying from the device");
    check_cuda(cudaEventRecord(done_, cudaStreamPerThread), "recording an event");
  }
  const std::byte* finish() {
    check_cuda(cudaEventSynchronize(done_), "waiting for the device");
    return static_cast<const std::byte*>(bytes_);
  }

 private:
  void* bytes_ = nullptr;
  cudaEvent_t done_ = nullptr;
};

std::shared_ptr<LateCopy> start_copy_out(int index, const std::byte* src, std::int64_t bytes,
                                         std::shared_ptr<LateCopy> used) {
  use(index);
  std::shared_ptr<LateCopy> copy = used != nullptr ? std::move(used) : std::make_shared<LateCopy>(bytes);
  copy->start(src, bytes);
  return copy;
}

const std::byte* finish(LateCopy& copy) {
  return copy.finish();
}

}  // namespace caravan::cuda_memory

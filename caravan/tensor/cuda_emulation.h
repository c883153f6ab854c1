// CUDA on the processor, for tests on machines without a GPU: the build with CARAVAN_CUDA=emulated.
//
// A .cu file is compiled as C++; the words that kernels use get a meaning here, and the few functions of the runtime that
// Caravan calls are in cuda_emulation.cc.  Device memory is host memory, poisoned when it is had.  A block's threads are
// fibers of one thread of the system: each runs until it waits at a barrier or for its warp, and goes on when all that it
// waits for have come.  So barriers and shuffles mean what they mean on a GPU, threads that wait for each other at different
// places are an error, and the order in which fibers run can be turned round to show a missing barrier
// (CARAVAN_EMULATION_BACKWARDS=1).  Time means nothing here.
//
// The device is a Hopper as far as anybody asks.  CARAVAN_EMULATION_SHARED_BYTES=n gives a block less shared memory,
// CARAVAN_EMULATION_DEVICES=n makes it several devices, CARAVAN_EMULATION_WITHOUT_CODE=1 one that no kernel was compiled for;
// CARAVAN_EMULATION_CUDNN=1 gives it plain loops in the place of cuDNN (ops/cuda/cudnn_emulated.cc).
#pragma once

#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#undef __shared__
#define __shared__ static thread_local
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __global__
#define __global__
#undef __device__
#define __device__
#undef __host__
#define __host__

namespace caravan::cuda_emulation {

// Runs `thread` for every thread of every block, block after block.  Throws Error when threads of a block wait for each
// other at different places.
void run(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& thread);

// run(), or while the stream records (cudaStreamBeginCapture) a node of the graph that does it; `thread` is called later
// then.
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& thread);

std::byte* dynamic_shared_bytes();
template <typename T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(dynamic_shared_bytes());
}

void wait_for_block();
// Gives the calling lane's 16 bytes and waits for its warp; the result is where the 32 lanes' bytes stand until the next
// exchange but one.
struct Bytes {
  alignas(16) std::byte byte[16];
};
const Bytes* exchange(const void* value, std::size_t size);

template <typename T>
T lane_value(const Bytes* lanes, int lane) {
  T value;
  std::memcpy(&value, lanes[lane & 31].byte, sizeof(T));
  return value;
}

int lane();

}  // namespace caravan::cuda_emulation

// Of the fiber that runs.
inline thread_local uint3 threadIdx{};
inline thread_local uint3 blockIdx{};
inline thread_local dim3 blockDim{};
inline thread_local dim3 gridDim{};

inline void __syncthreads() {
  caravan::cuda_emulation::wait_for_block();
}

inline void __syncwarp(unsigned /*mask*/ = 0xffffffffU) {
  const int nothing = 0;
  caravan::cuda_emulation::exchange(&nothing, sizeof(nothing));
}

template <typename T>
T __shfl_sync(unsigned /*mask*/, T value, int from, int width = 32) {
  const auto* lanes = caravan::cuda_emulation::exchange(&value, sizeof(T));
  const int lane = caravan::cuda_emulation::lane();
  return caravan::cuda_emulation::lane_value<T>(lanes, lane / width * width + from % width);
}

template <typename T>
T __shfl_xor_sync(unsigned /*mask*/, T value, int bits, int /*width*/ = 32) {
  const auto* lanes = caravan::cuda_emulation::exchange(&value, sizeof(T));
  return caravan::cuda_emulation::lane_value<T>(lanes, caravan::cuda_emulation::lane() ^ bits);
}

template <typename T>
T __shfl_down_sync(unsigned /*mask*/, T value, int distance, int width = 32) {
  const auto* lanes = caravan::cuda_emulation::exchange(&value, sizeof(T));
  const int lane = caravan::cuda_emulation::lane();
  return caravan::cuda_emulation::lane_value<T>(lanes, lane % width + distance < width ? lane + distance : lane);
}

template <typename T>
T __shfl_up_sync(unsigned /*mask*/, T value, int distance, int width = 32) {
  const auto* lanes = caravan::cuda_emulation::exchange(&value, sizeof(T));
  const int lane = caravan::cuda_emulation::lane();
  return caravan::cuda_emulation::lane_value<T>(lanes, lane % width >= distance ? lane - distance : lane);
}

template <typename T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}

template <typename T>
T atomicMax(T* at, T value) {
  const T before = *at;
  *at = before < value ? value : before;
  return before;
}

template <typename T>
T __ldg(const T* at) {
  return *at;
}

template <typename T>
T __ldcs(const T* at) {
  return *at;
}

template <typename T>
void __stcs(T* at, T value) {
  *at = value;
}

template <typename T>
void __stwb(T* at, T value) {
  *at = value;
}

inline float rsqrtf(float value) {
  return 1.0F / std::sqrt(value);
}

inline double rsqrt(double value) {
  return 1.0 / std::sqrt(value);
}

using std::isinf;
using std::isnan;

template <typename A, typename B>
std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}

template <typename A, typename B>
std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}

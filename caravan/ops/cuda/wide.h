// Sixteen bytes at a time, and sums over a block.  For the .cu files of ops/cuda only.
#pragma once

#include <cstdint>
#include <cstring>

#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffU;

// `kCount` neighbouring elements of global memory, read and written as one, or 16 bytes at a time.
template <typename T, int kCount>
struct alignas(kCount * sizeof(T) < 16 ? kCount * sizeof(T) : 16) Pack {
  T element[kCount];

  __device__ static Pack at(const T* place) { return *reinterpret_cast<const Pack*>(place); }
  __device__ void put(T* place) const {
    if constexpr (sizeof(Pack) % sizeof(uint4) == 0) {
      // As whole words: a store of the struct falls apart into stores of its members where they were computed late.
      constexpr std::size_t kWords = sizeof(Pack) / sizeof(uint4);
      uint4 words[kWords];
      memcpy(words, element, sizeof(Pack));
      for (std::size_t i = 0; i < kWords; ++i) {
        __stwb(reinterpret_cast<uint4*>(place) + i, words[i]);
      }
    } else {
      *reinterpret_cast<Pack*>(place) = *this;
    }
  }
};

// Elements of T in 16 bytes.
template <typename T>
inline constexpr int kWideCount = static_cast<int>(16 / sizeof(T));

// Read past the cache near the multiprocessor: for what is read once.
template <typename T>
__device__ Pack<T, kWideCount<T>> streamed(const T* place) {
  Pack<T, kWideCount<T>> result;
#ifdef CARAVAN_CUDA_EMULATED
  result = Pack<T, kWideCount<T>>::at(place);
#else
  *reinterpret_cast<int4*>(&result) = __ldcs(reinterpret_cast<const int4*>(place));
#endif
  return result;
}

// Makes the compiler forget what it knows of a pack of whole words: it then keeps the pack in registers, and not the wider
// numbers that it made of it and needs again later.
template <typename Packed>
__device__ void forget(Packed& pack) {
  std::uint32_t words[sizeof(Packed) / sizeof(std::uint32_t)];
  memcpy(words, &pack, sizeof(Packed));
  for (std::uint32_t& word : words) {
    asm volatile("" : "+r"(word));
  }
  memcpy(&pack, words, sizeof(Packed));
}

// The sum over the warp, in every lane.
template <typename R>
__device__ R warp_sum(R value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// The sum over the block, in every thread, in an order that depends on the block's size alone.  blockDim.x is a multiple of
// 32, at most 1024.
template <typename R>
__device__ R block_sum(R value) {
  __shared__ R of_warp[kWarp];
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) {
    of_warp[threadIdx.x / kWarp] = value;
  }
  __syncthreads();
  R sum = of_warp[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) {
    sum += of_warp[warp];
  }
  __syncthreads();  // the next sum may write
  return sum;
}

// Calls body.operator()<kCount>() with the elements of 16 bytes when every tensor allows it, else with 1.
template <typename T, typename Body>
void with_width(bool all_wide, const Body& body) {
  if (all_wide) {
    body.template operator()<kWideCount<T>>();
  } else {
    body.template operator()<1>();
  }
}

// Threads of a block that walks along `count` packs: whole warps, between one and sixteen.
inline unsigned threads_for(std::int64_t count) {
  return static_cast<unsigned>(std::clamp<std::int64_t>((count + kWarp - 1) / kWarp, 1, 16) * kWarp);
}

}  // namespace caravan::ops::cuda

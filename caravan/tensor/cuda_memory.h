// What this room asks of the CUDA runtime.  A build without CUDA has cuda_memory_absent.cc instead, whose functions say so.
//
// Everything on a device runs in order on the calling thread's own stream (cudaStreamPerThread): kernels, copies in and
// copies out.  So a freed block may be handed out again at once: whoever gets it comes later on the same stream.  The
// tensors of one allocator are therefore used by one thread at a time, as its context is; whoever hands them to another
// waits for the device first (ops::synchronize), uploads included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace caravan::cuda_memory {

// Why device `index` cannot be used (no CUDA in this build, no driver, no such device, an architecture that
// this build has no kernels for), in one sentence that says what to do; empty when it can.
std::string refusal(int index);

// Makes device `index` the calling thread's: kernels go there, and a thread begins with device 0.  All that is asked of a
// device here and in ops goes through this, which remembers the thread's last one.  Throws Error with CUDA's words.
void use(int index);

// "NVIDIA H200, 132 multiprocessors, compute capability 9.0, 140 GiB".  Throws UnsupportedError with refusal()'s words.
std::string describe(int index);

// Bytes of the device that nobody has taken.  Throws UnsupportedError as describe() does.
std::int64_t free_bytes(int index);

// Device memory, or nullptr when there is not so much.  Throws Error with CUDA's words when something else is wrong.
std::byte* reserve(int index, std::int64_t bytes);
// Waits for the device and gives reserve()'s memory back.
void release(int index, std::byte* base);

// Copies `rows` runs of `width` bytes from host memory without gaps to runs that stand `pitch` bytes apart on the device.
// `src` may be changed as soon as the call returns. It goes through 4 MiB of pinned memory that the thread has for
// the device, and waits only while the stream has not emptied them.  Throws Error with CUDA's words.
void copy_in(int index, std::byte* dst, std::int64_t pitch, const std::byte* src, std::int64_t width,
             std::int64_t rows);
// The other way, after everything that the stream was given before; returns when the bytes are there.
void copy_out(int index, std::byte* dst, const std::byte* src, std::int64_t pitch, std::int64_t width,
              std::int64_t rows);

// While one lives, copy_in() of its thread copies from pinned memory that holds what it was given: a stream that records
// (ops/graph.h) reads it again whenever the graph runs.
class KeptUploads {
 public:
  KeptUploads();
  ~KeptUploads();
  KeptUploads(const KeptUploads&) = delete;
  KeptUploads& operator=(const KeptUploads&) = delete;

  // All that was given so far; whoever holds it may outlive this.
  std::shared_ptr<const void> memory() const;

  struct Memory;

 private:
  std::shared_ptr<Memory> memory_;
};

// Bytes on their way from a device to pinned host memory.
class LateCopy;
// Asks for the copy of `bytes` bytes after everything that the stream was given before, and does not wait.  `used`, when
// given, was made for as many bytes, and its bytes are not needed any more.
std::shared_ptr<LateCopy> start_copy_out(int index, const std::byte* src, std::int64_t bytes,
                                         std::shared_ptr<LateCopy> used = nullptr);
// Waits until they are there.  Throws Error with CUDA's words.
const std::byte* finish(LateCopy& copy);

}  // namespace caravan::cuda_memory

#include "caravan/tensor/cuda_emulation.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "caravan/base/error.h"

#ifndef __x86_64__
#error "The emulation switches fibers in x86-64's assembly."
#endif

// Saves what a function must keep on the stack, leaves its place in *from, and goes on where `to` was left.
extern "C" void caravan_switch_fiber(void** from, void* to);
asm(R"(
.text
.globl caravan_switch_fiber
.type caravan_switch_fiber, @function
caravan_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size caravan_switch_fiber, .-caravan_switch_fiber
.section .note.GNU-stack,"",@progbits
.text
)");

namespace caravan::cuda_emulation {
namespace {

// The number in an environment variable, or `otherwise`.
std::size_t asked(const char* variable, std::size_t otherwise) {
  const char* value = std::getenv(variable);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

// What a block may have of shared memory: Hopper's, unless CARAVAN_EMULATION_SHARED_BYTES says another number.
std::size_t most_shared_bytes() {
  return asked("CARAVAN_EMULATION_SHARED_BYTES", std::size_t{227} << 10);
}

thread_local int device_now = 0;

constexpr int kLanes = 32;
constexpr std::size_t kStackBytes = std::size_t{1} << 17;

enum class Waiting { kNo, kWarp, kBlock, kDone };

struct Fiber {
  void* stack_pointer = nullptr;
  Waiting waiting = Waiting::kNo;
  int exchanges = 0;
  uint3 index{};
};

// The stacks of a block's fibers, kept for the thread's next kernels.
class Stacks {
 public:
  ~Stacks() {
    for (std::byte* stack : stacks_) {
      munmap(stack, kStackBytes);
    }
  }
  std::byte* at(std::size_t i) {
    while (stacks_.size() <= i) {
      void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (stack == MAP_FAILED) {
        throw Error("CUDA emulation: no memory for a thread's stack");
      }
      stacks_.push_back(static_cast<std::byte*>(stack));
    }
    return stacks_[i];
  }

 private:
  std::vector<std::byte*> stacks_;
};

struct Block {
  const std::function<void()>* thread = nullptr;
  std::vector<Fiber> fibers;
  std::vector<std::array<std::array<Bytes, kLanes>, 2>> warps;  // two exchanges of 32 lanes each
  std::vector<std::byte> shared;
  void* scheduler = nullptr;
  std::size_t current = 0;
};

thread_local Block block_now;
thread_local Stacks stacks;

// What a stream is asked for, in order.
using Nodes = std::vector<std::function<void()>>;
thread_local std::unique_ptr<Nodes> recording;  // of the thread's stream; null when it runs what it is asked for

// Copies out of pinned memory happen as late as they may: who fills it again too early is found.
struct Late {
  ~Late();
  Nodes copies;
};
thread_local bool thread_is_over = false;
thread_local Late late;

void catch_up() {
  if (!thread_is_over) {
    for (const auto& copy : std::exchange(late.copies, {})) {
      copy();
    }
  }
}

Late::~Late() {
  catch_up();
  thread_is_over = true;
}

// Does it, or notes it where the stream records: then it happens whenever the graph runs.
void ask(std::function<void()> work) {
  if (recording != nullptr) {
    recording->push_back(std::move(work));
  } else {
    catch_up();
    work();
  }
}

// Begins and ends of what cudaHostAlloc gave.
std::map<const std::byte*, const std::byte*> pinned_blocks;
std::mutex pinned_mutex;

bool is_pinned(const void* place) {
  const std::lock_guard lock(pinned_mutex);
  const auto after = pinned_blocks.upper_bound(static_cast<const std::byte*>(place));
  return after != pinned_blocks.begin() && place < std::prev(after)->second;
}

// A copy, late where it comes out of pinned memory.
void ask_copy(const void* src, std::function<void()> copy) {
  if (recording == nullptr && is_pinned(src)) {
    late.copies.push_back(std::move(copy));
  } else {
    ask(std::move(copy));
  }
}

void leave(Waiting why) {
  Fiber& fiber = block_now.fibers[block_now.current];
  fiber.waiting = why;
  caravan_switch_fiber(&fiber.stack_pointer, block_now.scheduler);
}

void fiber_main() {
  (*block_now.thread)();
  leave(Waiting::kDone);
  std::abort();  // a fiber that is done is not resumed
}

// A stack that caravan_switch_fiber() enters fiber_main() with.
void prepare(Fiber& fiber, std::byte* stack) {
  constexpr int kSaved = 6;
  auto* top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // where fiber_main would return to; it also aligns the stack as a call does
  *--top = reinterpret_cast<void*>(fiber_main);
  for (int i = 0; i < kSaved; ++i) {
    *--top = nullptr;
  }
  fiber.stack_pointer = top;
  fiber.waiting = Waiting::kNo;
  fiber.exchanges = 0;
}

void resume(std::size_t i) {
  block_now.current = i;
  threadIdx = block_now.fibers[i].index;
  caravan_switch_fiber(&block_now.scheduler, block_now.fibers[i].stack_pointer);
}

// Lets fibers [begin, end) go on when all of them that live wait for `what`; whether any did.
bool release(std::size_t begin, std::size_t end, Waiting what) {
  bool any = false;
  for (std::size_t i = begin; i < end; ++i) {
    const Waiting waiting = block_now.fibers[i].waiting;
    if (waiting != what && waiting != Waiting::kDone) {
      return false;
    }
    any = any || waiting == what;
  }
  for (std::size_t i = begin; i < end; ++i) {
    if (block_now.fibers[i].waiting == what) {
      block_now.fibers[i].waiting = Waiting::kNo;
    }
  }
  return any;
}

void run_block(bool backwards) {
  const std::size_t count = block_now.fibers.size();
  std::size_t done = 0;
  while (done < count) {
    bool progress = false;
    for (std::size_t step = 0; step < count; ++step) {
      const std::size_t i = backwards ? count - 1 - step : step;
      if (block_now.fibers[i].waiting == Waiting::kNo) {
        resume(i);
        progress = true;
        done += block_now.fibers[i].waiting == Waiting::kDone ? 1 : 0;
      }
    }
    for (std::size_t begin = 0; begin < count; begin += kLanes) {
      progress = release(begin, std::min(count, begin + kLanes), Waiting::kWarp) || progress;
    }
    progress = release(0, count, Waiting::kBlock) || progress;
    if (!progress) {
      throw Error("CUDA emulation: threads of a block wait for each other at different places");
    }
  }
}

}  // namespace

void run(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& thread) {
  const std::size_t count = std::size_t{block.x} * block.y * block.z;
  constexpr std::size_t kMostThreads = 1024;
  if (count == 0 || count > kMostThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
      grid.z > 65535) {
    throw Error("CUDA emulation: no GPU takes such a grid");
  }
  if (shared_bytes > most_shared_bytes()) {
    throw Error("CUDA emulation: a kernel asks for more shared memory than the device has");
  }
  const char* order = std::getenv("CARAVAN_EMULATION_BACKWARDS");
  const bool backwards = order != nullptr && std::string_view(order) == "1";
  block_now.thread = &thread;
  block_now.fibers.resize(count);
  block_now.warps.resize((count + kLanes - 1) / kLanes);
  blockDim = block;
  gridDim = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        block_now.shared.assign(shared_bytes + 16, std::byte{0xff});
        for (std::size_t i = 0; i < count; ++i) {
          const auto flat = static_cast<unsigned>(i);
          block_now.fibers[i].index = {flat % block.x, flat / block.x % block.y, flat / (block.x * block.y)};
          prepare(block_now.fibers[i], stacks.at(i));
        }
        run_block(backwards);
      }
    }
  }
}

void launch(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& thread) {
  ask([=] { run(grid, block, shared_bytes, thread); });
}

std::byte* dynamic_shared_bytes() {
  const auto address = reinterpret_cast<std::uintptr_t>(block_now.shared.data());
  return block_now.shared.data() + (16 - address % 16) % 16;
}

void wait_for_block() {
  leave(Waiting::kBlock);
}

int lane() {
  return static_cast<int>(block_now.current % kLanes);
}

const Bytes* exchange(const void* value, std::size_t size) {
  Fiber& fiber = block_now.fibers[block_now.current];
  auto& lanes = block_now.warps[block_now.current / kLanes][static_cast<std::size_t>(fiber.exchanges++ % 2)];
  std::memcpy(lanes[static_cast<std::size_t>(lane())].byte, value, size);
  leave(Waiting::kWarp);
  return lanes.data();
}

}  // namespace caravan::cuda_emulation

// A recorded graph and one that is made ready are the same here.
struct CUgraph_st {
  caravan::cuda_emulation::Nodes nodes;
};
struct CUgraphExec_st {
  caravan::cuda_emulation::Nodes nodes;
};

using namespace caravan::cuda_emulation;

// The runtime.  Everything is done when the call returns, so streams and events have nothing to do; but for copies out of
// pinned memory, which are late, and a stream that records, which as on a GPU keeps what it is asked for and refuses what
// would have to wait.
extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(asked("CARAVAN_EMULATION_DEVICES", 1));
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  int count = 0;
  (void)cudaGetDeviceCount(&count);
  if (device < 0 || device >= count) {
    return cudaErrorInvalidDevice;
  }
  device_now = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = device_now;
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* /*kernel*/) {
  *attributes = {};
  return asked("CARAVAN_EMULATION_WITHOUT_CODE", 0) == 0 ? cudaSuccess : cudaErrorNoKernelImageForDevice;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  int count = 0;
  (void)cudaGetDeviceCount(&count);
  if (device < 0 || device >= count) {
    return cudaErrorInvalidDevice;
  }
  *properties = {};
  std::strcpy(properties->name, "emulated device");
  properties->major = 9;
  properties->multiProcessorCount = 4;
  properties->sharedMemPerBlockOptin = most_shared_bytes();
  properties->totalGlobalMem = std::size_t{4} << 30;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = std::size_t{4} << 30;
  *free = *total;
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "an emulated error";
}

cudaError_t cudaGetLastError() {
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*pointer == nullptr) {
    return cudaErrorMemoryAllocation;
  }
  // NaN in every float type: who reads what nobody wrote is found.  Large slabs are poisoned at their beginning alone.
  std::memset(*pointer, 0xff, std::min(bytes, std::size_t{1} << 26));
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  catch_up();  // as CUDA waits for what the device was asked for
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned /*flags*/) {
  *pointer = std::malloc(bytes);
  if (*pointer == nullptr) {
    return cudaErrorMemoryAllocation;
  }
  const std::lock_guard lock(pinned_mutex);
  const auto* begin = static_cast<const std::byte*>(*pointer);
  pinned_blocks[begin] = begin + bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  catch_up();
  {
    const std::lock_guard lock(pinned_mutex);
    pinned_blocks.erase(static_cast<const std::byte*>(pointer));
  }
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* dst, const void* src, std::size_t bytes, cudaMemcpyKind /*kind*/,
                            cudaStream_t /*stream*/) {
  ask_copy(src, [=] { std::memmove(dst, src, bytes); });
  return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void* dst, std::size_t dst_pitch, const void* src, std::size_t src_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind /*kind*/, cudaStream_t /*stream*/) {
  ask_copy(src, [=] {
    for (std::size_t row = 0; row < height; ++row) {
      std::memmove(static_cast<std::byte*>(dst) + row * dst_pitch, static_cast<const std::byte*>(src) + row * src_pitch,
                   width);
    }
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t /*stream*/) {
  ask([=] { std::memset(pointer, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaMemset2DAsync(void* pointer, std::size_t pitch, int value, std::size_t width, std::size_t height,
                              cudaStream_t /*stream*/) {
  ask([=] {
    for (std::size_t row = 0; row < height; ++row) {
      std::memset(static_cast<std::byte*>(pointer) + row * pitch, value, width);
    }
  });
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t /*stream*/) {
  catch_up();
  return recording == nullptr ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t /*stream*/, cudaStreamCaptureMode /*mode*/) {
  if (recording != nullptr) {
    return cudaErrorIllegalState;
  }
  recording = std::make_unique<caravan::cuda_emulation::Nodes>();
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t /*stream*/, cudaStreamCaptureStatus* status) {
  *status = recording == nullptr ? cudaStreamCaptureStatusNone : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* /*mode*/) {
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t /*stream*/, cudaGraph_t* graph) {
  if (recording == nullptr) {
    return cudaErrorIllegalState;
  }
  *graph = new CUgraph_st{std::move(*recording)};
  recording = nullptr;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long /*flags*/) {
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t /*stream*/) {
  catch_up();
  for (const auto& node : exec->nodes) {
    node();
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  *event = nullptr;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t /*event*/, cudaStream_t /*stream*/) {
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t /*event*/) {
  catch_up();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t /*event*/) {
  return cudaSuccess;
}

}  // extern "C"

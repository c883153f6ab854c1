// What an op needs to know besides its tensors.  Passed to every op; there is no other state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "caravan/base/isa.h"
#include "caravan/tensor/allocator.h"

namespace caravan::ops {

enum class Backend {
  kCpu,   // oneDNN and SIMD kernels; what they do not cover falls through to the reference
  kRef,   // plain loops with double arithmetic: the oracle
  kCuda,  // cuBLASLt, cuDNN and kernels of ours on an NVIDIA GPU, in every dtype; nothing falls through
};

// "cpu", "ref", "cuda"
const char* to_string(Backend backend);

// Whether an op writes its result or adds it to what stands there.
enum class Accumulate { kStore, kAdd };

// Which implementation served a call, and why the ones before it in the list did not.
struct Choice {
  std::string op;                     // "linear"
  std::string implementation;         // "onednn", "simd:avx512", "ref"
  std::vector<std::string> refusals;  // "onednn: f64 has no kernel"
};

// How long one call took, in seconds.
struct Timing {
  const char* op = "";   // as Choice names it
  double prepare = 0.0;  // before the op's own work: packing a weight, making plans, taking workspace
  double run = 0.0;
};

// Plans and primitives of a backend, made once and kept: an implementation detail of ops/cpu.
class PlanCache;

// Handles, plans and small device buffers of ops/cuda, made when a context first needs them.
class CudaState;

// What ran when (ops/trace.h).
class Trace;

// One context serves one thread at a time.  Two contexts share nothing, so two models in two threads compute what each
// computes alone.
struct Context {
  Backend backend = Backend::kCpu;
  std::shared_ptr<Allocator> allocator;  // its device is the device of every tensor; kMeta makes a dry run of all ops
  int threads = 1;
  Isa isa = Isa::kAvx2;  // the highest level that kernels may use
  // Takes kernels of bf16 pairs where the processor has no products of pairs, by widening both: slow, the numerics of
  // AVX512_BF16 on any machine.
  bool emulate_bf16_pairs = false;
  std::shared_ptr<PlanCache> plans;  // null until the first plan is made
  std::shared_ptr<CudaState> cuda;   // null until ops/cuda first needs it
  bool deterministic = true;         // CUDA: same bits every run; false lets attention's backward use atomics
  // CUDA: the first product of a shape tries several algorithms and keeps the fastest.  Which one that is may differ from
  // run to run, and bits with it; it takes memory for another result.
  bool tune_products = false;
  bool record_graphs =
      true;  // CUDA: steps that repeat become graphs (ops/graph.h); false: each op is asked for each time
  // CUDA: of the context that a graph is recorded with, what its kernels read and others may drop; null elsewhere.
  std::shared_ptr<std::vector<std::shared_ptr<const void>>> kept;
  bool synchronous = false;                      // CUDA: wait after each op, so that an error names the op that made it
  std::shared_ptr<Trace> trace;                  // null: nobody wants one
  std::function<void(const Choice&)> on_choice;  // called once a dispatch when set
  // Called after a dispatch when set: not in a dry run, and not for what an op dispatches itself, which is its own time.
  std::function<void(const Timing&)> on_timed;

  bool dry_run() const { return allocator->device().kind == DeviceKind::kMeta; }
  Tensor allocate(DType dtype, const Shape& shape, Segment segment = Segment::kActivations) {
    return allocator->allocate(dtype, shape, segment);
  }
};

struct ContextOptions {
  Backend backend = Backend::kCpu;
  bool dry_run = false;
  int threads = 0;                   // 0: usable_cores()
  std::int64_t memory_capacity = 0;  // 0: usable_memory(), or what the GPU has free
  int cuda_device = 0;               // of Backend::kCuda
  bool deterministic = true;
};

// A context on this machine: usable_isa(), an allocator of its own, and, when CARAVAN_EXPLAIN=1 is set, choices printed
// to stderr (each distinct one once).  CARAVAN_SYNC=1 makes a CUDA context synchronous and without graphs, CARAVAN_TUNE=1 sets tune_products,
// CARAVAN_GRAPHS=0 clears record_graphs.  Throws as usable_isa(),
// Allocator::host() and Allocator::cuda() do.  A dry run of Backend::kCuda needs a build with CUDA and no GPU:
// where cuda_device is not there, it is taken for an H100 (132 multiprocessors, compute capability 9.0) with cuDNN.
Context make_context(const ContextOptions& options = {});

// Waits until the context's device has done all it was asked.  Throws Error with CUDA's words when something failed.
void synchronize(Context& ctx);

// How many plans (library primitives, packed layouts, lists of ranges on a GPU) this context has made so far: constant
// after warm-up.
std::int64_t plans_made(const Context& ctx);

}  // namespace caravan::ops

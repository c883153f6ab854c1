#include "caravan/ops/graph.h"

#include <utility>

#include "caravan/base/error.h"
#include "caravan/ops/args.h"
#include "caravan/ops/trace.h"

namespace caravan::ops {

Graph::Graph(Context& ctx, Body body) : outer_(ctx), body_(std::move(body)), ctx_(ctx) {
  if (ctx.backend != Backend::kCuda) {
    return;
  }
  ctx_.synchronous = false;
  ctx_.on_timed = nullptr;
  ctx_.on_choice = nullptr;
  if (ctx.dry_run()) {
    // Addresses far from the context's own, so that no tensor seems to lie in another.
    constexpr std::uintptr_t kElsewhere = std::uintptr_t{1} << 62;
    constexpr std::int64_t kRoom = std::int64_t{1} << 60;
    ctx_.allocator = Allocator::within(
        Tensor(DType::kU8, {kRoom}, ctx.allocator->device(), reinterpret_cast<std::byte*>(kElsewhere), nullptr));
    body_(ctx_);
    slab_ = ctx.allocate(DType::kU8, {ctx_.allocator->use().high_water}, Segment::kWorkspace);
    return;
  }
  // What body needs is known when it has been recorded once: recording runs nothing, so it may be done again.
  constexpr std::int64_t kFirstTry = std::int64_t{1} << 24;
  for (std::int64_t bytes = kFirstTry; recorded_ == nullptr; bytes *= 2) {
    try {
      record(bytes);
    } catch (const OutOfMemoryError&) {
      if (slab_.bytes() < bytes) {
        throw;  // it was the slab that was not there
      }
      continue;
    }
    if (recorded_ == nullptr) {
      slab_ = Tensor();
      return;  // nothing can be recorded here
    }
  }
  const std::int64_t needed = ctx_.allocator->use().high_water;
  record(needed);
}

void Graph::record(std::int64_t bytes) {
  recorded_ = nullptr;
  ctx_.allocator = outer_.allocator;
  slab_ = Tensor();
  slab_ = outer_.allocate(DType::kU8, {bytes}, Segment::kWorkspace);
  ctx_.allocator = Allocator::within(slab_);
  recorded_ = cuda::record(ctx_, [this] { body_(ctx_); });
}

Graph::~Graph() {
  if (recorded_ != nullptr) {
    try {
      synchronize(ctx_);  // a graph that runs is not freed
    } catch (const std::exception&) {
      // What failed on the device is told by the next op.
    }
  }
}

void Graph::run() {
  const TraceRange range(outer_, "graph");
  if (recorded_ != nullptr) {
    cuda::run_recorded(ctx_, recorded_);
  } else {
    body_(outer_);
  }
}

}  // namespace caravan::ops

#include "caravan/ops/graph.h"

#include <fmt/format.h>

#include <utility>

#include "caravan/base/error.h"
#include "caravan/ops/args.h"
#include "caravan/ops/trace.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan::ops {

Graph::Graph(Context& ctx, Body body) : outer_(ctx), body_(std::move(body)), ctx_(ctx) {
  if (ctx.backend != Backend::kCuda || !ctx.record_graphs || ctx.dry_run()) {
    return;
  }
  ctx_.synchronous = false;
  ctx_.on_timed = nullptr;
  ctx_.on_choice = nullptr;
  record();
}

void Graph::record() {
  recorded_ = nullptr;
  // Kernels of a graph read lists and plans that other calls may push out of their caches: the graph holds them.
  ctx_.kept = std::make_shared<std::vector<std::shared_ptr<const void>>>();
  outer_.allocator->begin_trail();
  try {
    const cuda_memory::KeptUploads uploads;
    recorded_ = cuda::record(ctx_, [this] { body_(ctx_); });
    ctx_.kept->push_back(uploads.memory());
  } catch (...) {
    (void)outer_.allocator->end_trail();
    throw;
  }
  trail_ = outer_.allocator->end_trail();
  if (trail_.left_bytes > 0) {
    recorded_ = nullptr;
    throw Error(fmt::format("a graph's ops keep {} bytes that they allocated: run them once before they are recorded",
                            trail_.left_bytes));
  }
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
  if (recorded_ == nullptr) {
    body_(outer_);
    return;
  }
  if (!outer_.allocator->is_free(trail_)) {
    synchronize(ctx_);
    record();
  }
  cuda::run_recorded(ctx_, recorded_);
}

}  // namespace caravan::ops

#include "caravan/ops/graph.h"

#include <utility>

#include "caravan/ops/args.h"

namespace caravan::ops {
namespace {

// What body needs at most, holes included.
std::int64_t bytes_of(const Context& like, const Graph::Body& body) {
  Context dry = like;
  dry.allocator = Allocator::meta();
  dry.on_choice = nullptr;
  dry.on_timed = nullptr;
  body(dry);
  return dry.allocator->use().high_water;
}

}  // namespace

Graph::Graph(Context& ctx, Body body) : body_(std::move(body)), ctx_(ctx) {
  if (ctx.dry_run() || ctx.backend != Backend::kCuda) {
    return;
  }
  slab_ = ctx.allocate(DType::kU8, {bytes_of(ctx, body_)}, Segment::kWorkspace);
  ctx_.allocator = Allocator::within(slab_);
  ctx_.synchronous = false;
  ctx_.on_timed = nullptr;
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
  if (recorded_ != nullptr) {
    cuda::run_recorded(ctx_, recorded_);
  } else {
    body_(ctx_);
  }
}

}  // namespace caravan::ops

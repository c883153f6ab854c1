// Ops that are recorded once and run many times: a step whose tensors stand where they stood.
#pragma once

#include <functional>
#include <memory>

#include "caravan/ops/context.h"

namespace caravan::ops {

// On a GPU the ops of `body` become one CUDA graph: a step costs the host one launch.  Elsewhere run() calls body.
//
// body may ask for ops and tensors; not for copies from or to the host, plans that were not made before, or anything that
// waits.  So it is run once before it is recorded, by the caller.  Its tensors come from a slab of its own, taken out of
// the context's memory and as large as body needs, since every run writes where the first one did.
class Graph {
 public:
  using Body = std::function<void(Context&)>;

  // Records, and runs nothing.  The tensors that body reads and writes, and ctx, must outlive the graph.
  // Throws what body throws, OutOfMemoryError, and Error with CUDA's words.
  Graph(Context& ctx, Body body);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Runs it after all that was asked of the device before.
  void run();

 private:
  // Takes a slab of so many bytes and records into it.
  void record(std::int64_t bytes);

  Context& outer_;
  Body body_;
  Tensor slab_;
  Context ctx_;                     // over the slab
  std::shared_ptr<void> recorded_;  // of a GPU
};

}  // namespace caravan::ops

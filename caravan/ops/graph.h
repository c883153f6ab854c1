// Ops that are recorded once and run many times: a step whose tensors stand where they stood.
#pragma once

#include <functional>
#include <memory>

#include "caravan/base/error.h"
#include "caravan/ops/context.h"

namespace caravan::ops {

// A body asks for something that was made before and is gone, or was never made: it has to be run once more as it is.
class NotRecordableError : public Error {
  using Error::Error;
};

// On a GPU the ops of `body` become one CUDA graph: a step costs the host one launch.  Elsewhere, and where the context's
// record_graphs is false, run() calls body.
//
// body may ask for ops and tensors, and copy to the device what stays the same from run to run; not for copies to the host,
// plans that were not made before, or anything that waits.  So it is run once before it is recorded, by the caller.  What
// body allocates it gives back: between runs that memory is anybody's, and a run whose memory is in use is recorded anew.
class Graph {
 public:
  using Body = std::function<void(Context&)>;

  // Records, and runs nothing.  The tensors that body reads and writes, and ctx, must outlive the graph.
  // Throws what body throws, NotRecordableError, and Error with CUDA's words or when body keeps memory.
  Graph(Context& ctx, Body body);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Runs it after all that was asked of the device before.  Throws as the constructor does.
  void run();

 private:
  void record();

  Context& outer_;
  Body body_;
  Context ctx_;  // that body is recorded with
  AllocationTrail trail_;
  std::shared_ptr<void> recorded_;  // of a GPU
};

}  // namespace caravan::ops

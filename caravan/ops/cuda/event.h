// Places in a stream's work, to measure time between two.  For ops/cuda only.
#pragma once

#include "caravan/ops/cuda/state.h"

namespace caravan::ops::cuda {

class Event {
 public:
  Event() { check_cuda(cudaEventCreate(&event_), "making an event"); }
  ~Event() { (void)cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // At what the calling thread's stream was asked for so far.
  void record() const { check_cuda(cudaEventRecord(event_, stream()), "recording an event"); }
  void wait() const { check_cuda(cudaEventSynchronize(event_), "waiting for an event"); }
  // Milliseconds; waits for this one.
  float since(const Event& begin) const {
    float milliseconds = 0;
    wait();
    check_cuda(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "reading an event");
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace caravan::ops::cuda

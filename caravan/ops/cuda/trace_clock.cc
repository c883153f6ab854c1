// When a stream reached places in its work (events), and ranges for NVIDIA's profilers.
#include "caravan/ops/args.h"
#include "caravan/ops/cuda/state.h"
#include "caravan/ops/trace.h"
#include "caravan/tensor/cuda_memory.h"

#ifndef CARAVAN_CUDA_EMULATED
#include <nvtx3/nvToolsExt.h>
#endif

namespace caravan::ops::cuda {

#ifdef CARAVAN_CUDA_EMULATED

std::unique_ptr<DeviceClock> make_clock(Context& /*ctx*/) {
  return nullptr;
}

void push_range(const char* /*name*/) {}

void pop_range() {}

#else

namespace {

using Time = std::chrono::steady_clock::time_point;

// Events of one stream; the first of a batch ties them to the host's clock.
class StreamClock final : public DeviceClock {
 public:
  explicit StreamClock(int device) : device_(device) {}
  ~StreamClock() override {
    for (const cudaEvent_t event : events_) {
      (void)cudaEventDestroy(event);
    }
  }

  bool mark() override {
    cuda_memory::use(device_);
    if (is_recording()) {
      return false;
    }
    if (used_ == 0) {
      record();
      check_cuda(cudaEventSynchronize(events_[0]), "waiting for a trace's event");
      origin_ = std::chrono::steady_clock::now();
    }
    record();
    return true;
  }

  void read(std::vector<Time>& times) override {
    if (used_ == 0) {
      return;
    }
    for (std::size_t i = 1; i < used_; ++i) {
      float milliseconds = 0;
      // Each, since threads have streams of their own.
      check_cuda(cudaEventSynchronize(events_[i]), "waiting for a trace's event");
      check_cuda(cudaEventElapsedTime(&milliseconds, events_[0], events_[i]), "reading a trace's event");
      times.push_back(origin_ + std::chrono::duration_cast<Time::duration>(
                                    std::chrono::duration<double, std::milli>(milliseconds)));
    }
    used_ = 0;
  }

 private:
  void record() {
    if (used_ == events_.size()) {
      cudaEvent_t event = nullptr;
      check_cuda(cudaEventCreate(&event), "making a trace's event");
      events_.push_back(event);
    }
    check_cuda(cudaEventRecord(events_[used_], stream()), "recording a trace's event");
    ++used_;
  }

  int device_;
  std::vector<cudaEvent_t> events_;  // made so far, used again after read()
  std::size_t used_ = 0;
  Time origin_;
};

}  // namespace

std::unique_ptr<DeviceClock> make_clock(Context& ctx) {
  return std::make_unique<StreamClock>(ctx.allocator->device().index);
}

void push_range(const char* name) {
  nvtxRangePushA(name);
}

void pop_range() {
  nvtxRangePop();
}

#endif

}  // namespace caravan::ops::cuda

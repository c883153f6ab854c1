// When a stream reached places in its work (events), and ranges for NVIDIA's profilers.
#include <deque>
#include <utility>

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/event.h"
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

  bool mark() override {
    cuda_memory::use(device_);
    if (is_recording()) {
      return false;
    }
    if (used_ == 0) {
      record();
      events_[0].wait();
      origin_ = std::chrono::steady_clock::now();
    }
    record();
    return true;
  }

  bool can_read() const override { return !is_recording(); }

  void read(std::vector<Time>& times) override {
    const std::size_t used = std::exchange(used_, 0);
    for (std::size_t i = 1; i < used; ++i) {
      // Each is waited for, since threads have streams of their own.
      times.push_back(origin_ + std::chrono::duration_cast<Time::duration>(
                                    std::chrono::duration<double, std::milli>(events_[i].since(events_[0]))));
    }
  }

 private:
  void record() {
    if (used_ == events_.size()) {
      events_.emplace_back();
    }
    events_[used_].record();
    ++used_;
  }

  int device_;
  std::deque<Event> events_;  // made so far, used again after read()
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

// What this machine can do: the yardstick of the mfu figure.
#pragma once

#include "caravan/ops/context.h"
#include "caravan/ops/weight.h"

namespace caravan::train {

// Times products [1024, 1024] x [1024, 1024]^T with a packed weight in the type that the model computes in.  Memory is
// the meter's own, outside the run's allocator.
class PeakMeter {
 public:
  // With the threads and instruction set of `like`.
  PeakMeter(const ops::Context& like, DType dtype);

  // Floating-point operations per second of the best product so far, after measuring for about `seconds` more (at least
  // one product, three the first time).  On a machine that is shared the first measurement may be low: measure again
  // now and then.
  double measure(double seconds);
  double best() const { return best_; }

 private:
  ops::Context ctx_;
  Tensor x_;
  Tensor y_;
  ops::Weight weight_;
  double best_ = 0.0;
};

}  // namespace caravan::train

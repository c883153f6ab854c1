// What this machine can do: the yardstick of the mfu figure.
#pragma once

#include "caravan/ops/context.h"

namespace caravan::train {

// Floating-point operations per second of the largest product that a training step makes, [1024, 1024] x [1024, 1024]^T
// with a packed weight, in the type that the model computes in: the best of several within about a quarter of a second.
// Depends on what else the machine does; 0 on the meta device.
double measured_product_peak(ops::Context& ctx, DType dtype);

}  // namespace caravan::train

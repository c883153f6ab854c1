// What every communicator asks of its arguments before it notes or sends anything.  All throw ShapeError
// (UnsupportedError for a device of another build) in a sentence that begins with `op`.
#pragma once

#include "caravan/tensor/tensor.h"

namespace caravan::comm {

// Contiguous, on the host or on the meta device.
void check_tensor(const char* op, const Tensor& tensor);

// Of a type that is summed: f64, f32, bf16, f16 or i64.
void check_summable(const char* op, const Tensor& tensor);

// `whole` has `size` times the rows of `part`; columns, dtype and kind of device agree.
void check_share(const char* op, const Tensor& whole, const Tensor& part, int size);

// 0 <= rank < size.
void check_rank(const char* op, int rank, int size);

inline bool is_meta(const Tensor& tensor) {
  return tensor.device().kind == DeviceKind::kMeta;
}

}  // namespace caravan::comm

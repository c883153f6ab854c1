#include "caravan/comm/checks.h"

#include <fmt/format.h>

#include "caravan/base/error.h"
#include "caravan/comm/sum.h"

namespace caravan::comm {

void check_tensor(const char* op, const Tensor& tensor) {
  if (!tensor.defined()) {
    throw ShapeError(fmt::format("{}: a tensor expected, found {}", op, to_string(tensor)));
  }
  if (tensor.device().kind != DeviceKind::kHost && !is_meta(tensor)) {
    throw UnsupportedError(fmt::format("{}: {}: this build was made without CUDA", op, to_string(tensor)));
  }
  if (!tensor.contiguous()) {
    throw ShapeError(fmt::format("{}: a contiguous tensor expected, found {} with a row stride of {}", op,
                                 to_string(tensor), tensor.row_stride()));
  }
}

void check_summable(const char* op, const Tensor& tensor) {
  if (!has_sum(tensor.dtype())) {
    throw ShapeError(
        fmt::format("{}: f64, f32, bf16, f16 or i64 can be summed over ranks, found {}", op, to_string(tensor)));
  }
}

void check_share(const char* op, const Tensor& whole, const Tensor& part, int size) {
  if (whole.dtype() != part.dtype() || is_meta(whole) != is_meta(part) || whole.columns() != part.columns() ||
      whole.rows() != part.rows() * size) {
    throw ShapeError(fmt::format("{} of {} ranks: {} is not {} times {} by rows", op, size, to_string(whole), size,
                                 to_string(part)));
  }
}

void check_rank(const char* op, int rank, int size) {
  if (rank < 0 || rank >= size) {
    throw ShapeError(fmt::format("{}: there is no rank {} among {} rank{}", op, rank, size, size == 1 ? "" : "s"));
  }
}

}  // namespace caravan::comm

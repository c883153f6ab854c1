#include "caravan/ops/rope.h"

#include <fmt/format.h>

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {
namespace {

// cos and sin: one shape [tokens, head_dim / 2] and one dtype, f32 or f64.
void check_tables(const ArgumentCheck& check, const Tensor& cos, const Tensor& sin) {
  check.float_matrix("cos", cos);
  check.require(cos.dtype() == DType::kF32 || cos.dtype() == DType::kF64, "cos", "f32 or f64", to_string(cos));
  check.require(cos.columns() > 0, "cos", "at least one column", to_string(cos));
  check.whole("cos", cos, cos.dtype(), cos.shape());
  check.whole("sin", sin, cos.dtype(), cos.shape());
}

}  // namespace

void rope_tables(Context& ctx, const Tensor& cos, const Tensor& sin, const Tensor& positions, const Tensor& frequencies,
                 const Tensor& kind, double attention_scaling, DType rounded_to) {
  const ArgumentCheck check(ctx, "rope_tables");
  check_tables(check, cos, sin);
  const std::int64_t tokens = cos.rows();
  check.whole("positions", positions, DType::kI32, {tokens});
  check.whole("kind", kind, DType::kI32, {tokens});
  check.float_matrix("frequencies", frequencies);
  check.whole("frequencies", frequencies, DType::kF32, {frequencies.rows(), cos.columns()});
  check.require(is_compute_float(rounded_to), "rounded_to", "f64, f32, bf16 or f16", to_string(rounded_to));
  check.disjoint("cos", cos, "sin", sin);
  if (tokens == 0) {
    return;
  }
  dispatch_all<RopeTablesArgs>(ctx, "rope_tables", cpu::rope_tables_list(), cuda::rope_tables_list(),
                               ref::rope_tables_list(),
                               {cos, sin, positions, frequencies, kind, attention_scaling, rounded_to});
}

void rope(Context& ctx, const Tensor& y, const Tensor& x, const Tensor& cos, const Tensor& sin, RopePairing pairing,
          bool inverse) {
  const ArgumentCheck check(ctx, "rope");
  check.float_matrix("x", x);
  check.window("y", y, x.dtype(), x.shape());
  check_tables(check, cos, sin);
  check.window("cos", cos, statistics_dtype(x.dtype()), {x.rows(), cos.columns()});
  const std::int64_t head_dim = 2 * cos.columns();
  check.require(x.columns() % head_dim == 0, "x", fmt::format("whole heads of {} columns", head_dim), to_string(x));
  check.same_or_disjoint("y", y, "x", x);
  check.disjoint("y", y, "cos", cos);
  check.disjoint("y", y, "sin", sin);
  if (y.elements() == 0) {
    return;
  }
  dispatch_all<RopeArgs>(ctx, "rope", cpu::rope_list(), cuda::rope_list(), ref::rope_list(),
                         {y, x, cos, sin, pairing, inverse});
}

}  // namespace caravan::ops

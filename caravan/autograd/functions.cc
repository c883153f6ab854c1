#include "caravan/autograd/functions.h"

#include <utility>

#include "caravan/ops/embedding.h"
#include "caravan/ops/swiglu.h"

namespace caravan::autograd {

Value embedding(Context& ctx, const Parameter& table, const Tensor& ids) {
  const Tensor y = ctx.ops.allocate(table.tensor().dtype(), {ids.rows(), table.tensor().columns()});
  ops::embedding(ctx.ops, y, table.tensor(), ids);
  return {y};
}

Value linear(Context& ctx, const Value& x, const Parameter& weight, const Parameter* bias, const Value* plus) {
  const Tensor y = ctx.ops.allocate(x.tensor.dtype(), {x.tensor.rows(), weight.tensor().rows()});
  ops::linear(ctx.ops, y, x.tensor, weight.weight, bias == nullptr ? Tensor() : bias->tensor(),
              plus == nullptr ? Tensor() : plus->tensor);
  return {y};
}

Value rms_norm(Context& ctx, const Value& x, const Parameter& weight, double eps, ops::NormRounding rounding) {
  const Tensor y = ctx.ops.allocate(x.tensor.dtype(), x.tensor.shape());
  ops::rms_norm(ctx.ops, y, Tensor(), x.tensor, weight.tensor(), eps, rounding);
  return {y};
}

Value rope_in_place(Context& ctx, Value qkv, const RotaryTables& tables, const ops::HeadShape& heads,
                    ops::RopePairing pairing) {
  // Query and key heads are neighbours and turn alike, so both are one call.
  const Tensor turned = qkv.tensor.column_range(0, (heads.heads + heads.kv_heads) * heads.head_dim);
  ops::rope(ctx.ops, turned, turned, tables.cos, tables.sin, pairing);
  return qkv;
}

Value attention(Context& ctx, const Value& qkv, const ops::HeadShape& heads, const std::vector<AttentionRange>& ranges,
                double scale) {
  const std::int64_t query_columns = heads.heads * heads.head_dim;
  const std::int64_t kv_columns = heads.kv_heads * heads.head_dim;
  const Tensor query = qkv.tensor.column_range(0, query_columns);
  const Tensor key = qkv.tensor.column_range(query_columns, query_columns + kv_columns);
  const Tensor value = qkv.tensor.column_range(query_columns + kv_columns, query_columns + 2 * kv_columns);
  const Tensor out = ctx.ops.allocate(qkv.tensor.dtype(), {qkv.tensor.rows(), query_columns});
  ops::attention(ctx.ops, out, Tensor(), query, key, value, heads, ranges, scale);
  return {out};
}

Value swiglu(Context& ctx, const Value& gate_up) {
  const Tensor y = ctx.ops.allocate(gate_up.tensor.dtype(), {gate_up.tensor.rows(), gate_up.tensor.columns() / 2});
  ops::swiglu(ctx.ops, y, gate_up.tensor);
  return {y};
}

Value loss_head(Context& ctx, const Value& hidden, const Parameter& weight, const Tensor& targets) {
  const DType dtype = hidden.tensor.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  const Tensor token_nll = ctx.ops.allocate(dtype, {hidden.tensor.rows()});
  ops::loss_head(ctx.ops, token_nll, hidden.tensor, weight.weight, targets);
  return {token_nll};
}

}  // namespace caravan::autograd

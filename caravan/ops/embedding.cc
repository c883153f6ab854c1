#include "caravan/ops/embedding.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

void embedding(Context& ctx, const Tensor& y, const Weight& table, const Tensor& ids) {
  const ArgumentCheck check(ctx, "embedding");
  check.weight_matrix("table", table);
  if (!table.is_in_blocks()) {
    check.whole("table", table.plain(), table.dtype(), table.shape());
  }
  check.float_matrix("y", y);
  check.whole("y", y, table.dtype(), {y.rows(), table.shape()[1]});
  check.whole("ids", ids, DType::kI32, {y.rows()});
  check.disjoint("y", y, "table", table.plain());
  check.disjoint("y", y, "ids", ids);
  if (y.elements() == 0) {
    return;
  }
  dispatch_all<EmbeddingArgs>(ctx, "embedding", cpu::embedding_list(), cuda::embedding_list(), ref::embedding_list(),
                              {y, table, ids});
}

void embedding(Context& ctx, const Tensor& y, const Tensor& table, const Tensor& ids) {
  embedding(ctx, y, Weight(table), ids);
}

void embedding_weight_grad(Context& ctx, const Tensor& d_table, const Tensor& dy, const Tensor& ids,
                           std::int64_t skipped_id) {
  const ArgumentCheck check(ctx, "embedding_weight_grad");
  check.float_matrix("dy", dy);
  check.whole("dy", dy, dy.dtype(), dy.shape());
  check.float_matrix("d_table", d_table);
  check.whole("d_table", d_table, statistics_dtype(dy.dtype()), {d_table.rows(), dy.columns()});
  check.whole("ids", ids, DType::kI32, {dy.rows()});
  check.disjoint("d_table", d_table, "dy", dy);
  check.disjoint("d_table", d_table, "ids", ids);
  if (dy.elements() == 0) {
    return;
  }
  dispatch_all<EmbeddingWeightGradArgs>(ctx, "embedding_weight_grad", cpu::embedding_weight_grad_list(),
                                        cuda::embedding_weight_grad_list(), ref::embedding_weight_grad_list(),
                                        {d_table, dy, ids, skipped_id});
}

}  // namespace caravan::ops

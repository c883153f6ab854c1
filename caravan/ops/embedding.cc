#include "caravan/ops/embedding.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {

void embedding(Context& ctx, const Tensor& y, const Tensor& table, const Tensor& ids) {
  const ArgumentCheck check(ctx, "embedding");
  check.float_matrix("table", table);
  check.whole("table", table, table.dtype(), table.shape());
  check.float_matrix("y", y);
  check.whole("y", y, table.dtype(), {y.rows(), table.columns()});
  check.whole("ids", ids, DType::kI32, {y.rows()});
  check.disjoint("y", y, "table", table);
  check.disjoint("y", y, "ids", ids);
  if (y.elements() == 0) {
    return;
  }
  dispatch_all<EmbeddingArgs>(ctx, "embedding", cpu::embedding_list(), ref::embedding_list(), {y, table, ids});
}

}  // namespace caravan::ops

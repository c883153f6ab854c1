#include "caravan/ops/reading.h"

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"
#include "caravan/ops/elementwise.h"

namespace caravan::ops {

void sum_words(Context& ctx, const Tensor& sum, const Tensor& x) {
  const ArgumentCheck check(ctx, "sum_words");
  check.whole("sum", sum, DType::kI64, {1});
  check.whole("x", x, x.dtype(), x.shape());
  check.require(x.bytes() % size_of(DType::kI64) == 0, "x", "a multiple of 8 bytes", to_string(x));
  check.disjoint("sum", sum, "x", x);
  if (x.elements() == 0) {
    zero(ctx, sum);
    return;
  }
  dispatch_all<SumWordsArgs>(ctx, "sum_words", cpu::sum_words_list(), cuda::sum_words_list(), ref::sum_words_list(),
                             {sum, x});
}

}  // namespace caravan::ops

#include "caravan/ops/embedding.h"

#include <algorithm>

#include "caravan/ops/args.h"
#include "caravan/ops/host_checks.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

void run(Context&, const EmbeddingArgs& args, std::byte*) {
  check_ids(args.ids, args.table.rows());
  with_float_type(args.y.dtype(), [&]<typename T>() {
    const auto* ids = elements<const std::int32_t>(args.ids);
    const std::int64_t hidden = args.y.columns();
    const Rows<const T> table(args.table);
    const Rows<T> y(args.y);
    for (std::int64_t t = 0; t < args.y.rows(); ++t) {
      if (ids[t] < 0) {
        std::fill_n(y[t], hidden, T{});
      } else {
        std::copy_n(table[ids[t]], hidden, y[t]);
      }
    }
  });
}

constexpr Implementation<EmbeddingArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run}};

}  // namespace

ImplementationList<EmbeddingArgs> embedding_list() {
  return kList;
}

}  // namespace caravan::ops::ref

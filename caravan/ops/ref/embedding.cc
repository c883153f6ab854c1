#include "caravan/ops/embedding.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "caravan/ops/args.h"
#include "caravan/ops/host_checks.h"
#include "caravan/ops/ref/weight_rows.h"

namespace caravan::ops::ref {
namespace {

void run(Context&, const EmbeddingArgs& args, std::byte*) {
  check_ids(args.ids, args.table.shape()[0]);
  with_float_type(args.y.dtype(), [&]<typename T>() {
    const auto* ids = elements<const std::int32_t>(args.ids);
    const std::int64_t hidden = args.y.columns();
    const WeightRows<T> table(args.table);
    std::vector<double> row(static_cast<std::size_t>(hidden));
    const Rows<T> y(args.y);
    for (std::int64_t t = 0; t < args.y.rows(); ++t) {
      if (ids[t] < 0) {
        std::fill_n(y[t], hidden, T{});
      } else {
        table.read(ids[t], row.data());
        std::transform(row.begin(), row.end(), y[t], round_to<T>);
      }
    }
  });
}

// Rows in order of their id, those of one id in their own order: order[0] and on are the rows of the least id.
void sort_by_id(const std::int32_t* ids, std::int64_t tokens, std::int64_t* order) {
  std::iota(order, order + tokens, 0);
  std::sort(order, order + tokens,
            [&](std::int64_t a, std::int64_t b) { return ids[a] != ids[b] ? ids[a] < ids[b] : a < b; });
}

// S: the dtype of d_table.
template <typename T, typename S>
void weight_grad(const EmbeddingWeightGradArgs& args, const std::int64_t* order) {
  const auto* ids = elements<const std::int32_t>(args.ids);
  const std::int64_t tokens = args.dy.rows();
  const Rows<const T> dy(args.dy);
  const Rows<S> d_table(args.d_table);
  for (std::int64_t begin = 0, end = 0; begin < tokens; begin = end) {
    const std::int32_t id = ids[order[begin]];
    while (end < tokens && ids[order[end]] == id) {
      ++end;
    }
    for (std::int64_t i = 0; i < args.dy.columns() && id >= 0 && id != args.skipped_id; ++i) {
      double sum = 0;
      for (std::int64_t k = begin; k < end; ++k) {
        sum += load(dy[order[k]][i]);
      }
      store(d_table[id][i], sum, Accumulate::kAdd);
    }
  }
}

std::int64_t weight_grad_workspace(Context&, const EmbeddingWeightGradArgs& args) {
  return args.dy.rows() * static_cast<std::int64_t>(sizeof(std::int64_t));
}

void run_weight_grad(Context&, const EmbeddingWeightGradArgs& args, std::byte* scratch) {
  check_ids(args.ids, args.d_table.rows());
  auto* order = reinterpret_cast<std::int64_t*>(scratch);
  sort_by_id(elements<const std::int32_t>(args.ids), args.dy.rows(), order);
  with_float_types(args.dy.dtype(), [&]<typename T, typename S>() { weight_grad<T, S>(args, order); });
}

constexpr Implementation<EmbeddingWeightGradArgs> kWeightGradList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, weight_grad_workspace, run_weight_grad}};
constexpr Implementation<EmbeddingArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run}};

}  // namespace

ImplementationList<EmbeddingArgs> embedding_list() {
  return kList;
}
ImplementationList<EmbeddingWeightGradArgs> embedding_weight_grad_list() {
  return kWeightGradList;
}

}  // namespace caravan::ops::ref

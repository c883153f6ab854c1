#include "caravan/ops/attention.h"

#include <fmt/format.h>

#include "caravan/base/error.h"
#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"

namespace caravan::ops {
namespace {

void check_heads(const ArgumentCheck& check, const HeadShape& heads) {
  const bool holds = heads.heads > 0 && heads.kv_heads > 0 && heads.head_dim > 0 && heads.heads % heads.kv_heads == 0;
  check.require(holds, "heads", "positive numbers with kv_heads dividing heads",
                fmt::format("{} heads, {} kv_heads, head_dim {}", heads.heads, heads.kv_heads, heads.head_dim));
}

void check_ranges(const std::vector<AttentionRange>& ranges, std::int64_t queries, std::int64_t keys) {
  try {
    caravan::check(ranges, queries, keys);
  } catch (const ShapeError& error) {
    throw ShapeError(fmt::format("attention: argument ranges: {}", error.what()));
  }
}

}  // namespace

void attention(Context& ctx, const Tensor& out, const Tensor& lse, const Tensor& query, const Tensor& key,
               const Tensor& value, const HeadShape& heads, const std::vector<AttentionRange>& ranges, double scale) {
  const ArgumentCheck check(ctx, "attention");
  check_heads(check, heads);
  check.float_matrix("query", query);
  check.float_matrix("key", key);
  const std::int64_t queries = query.rows();
  const std::int64_t keys = key.rows();
  check.window("query", query, query.dtype(), {queries, heads.heads * heads.head_dim});
  check.window("key", key, query.dtype(), {keys, heads.kv_heads * heads.head_dim});
  check.window("value", value, query.dtype(), {keys, heads.kv_heads * heads.head_dim});
  check.window("out", out, query.dtype(), query.shape());
  check.disjoint("out", out, "query", query);
  check.disjoint("out", out, "key", key);
  check.disjoint("out", out, "value", value);
  if (lse.defined()) {
    check.whole("lse", lse, statistics_dtype(query.dtype()), {queries, heads.heads});
    check.disjoint("lse", lse, "out", out);
  }
  check_ranges(ranges, queries, keys);
  if (queries == 0) {
    return;
  }
  dispatch_all<AttentionArgs>(ctx, "attention", cpu::attention_list(), ref::attention_list(),
                              {out, lse, query, key, value, heads, &ranges, scale});
}

}  // namespace caravan::ops

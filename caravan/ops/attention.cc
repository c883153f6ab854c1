#include "caravan/ops/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"
#include "caravan/ops/elementwise.h"

namespace caravan::ops {
namespace {

void check_heads(const ArgumentCheck& check, const HeadShape& heads) {
  const bool holds = heads.heads > 0 && heads.kv_heads > 0 && heads.head_dim > 0 && heads.heads % heads.kv_heads == 0;
  check.require(holds, "heads", "positive numbers with kv_heads dividing heads",
                fmt::format("{} heads, {} kv_heads, head_dim {}", heads.heads, heads.kv_heads, heads.head_dim));
}

// The ranges that kernels get: those that hold both queries and keys.  `room` keeps them where others are left out.
const std::vector<AttentionRange>& checked_ranges(const char* op, const std::vector<AttentionRange>& ranges,
                                                  std::int64_t queries, std::int64_t keys,
                                                  std::vector<AttentionRange>& room) {
  try {
    caravan::check(ranges, queries, keys);
  } catch (const ShapeError& error) {
    throw ShapeError(fmt::format("{}: argument ranges: {}", op, error.what()));
  }
  const auto empty = [](const AttentionRange& range) {
    return range.query_begin == range.query_end || range.key_begin == range.key_end;
  };
  if (std::ranges::none_of(ranges, empty)) {
    return ranges;
  }
  std::ranges::remove_copy_if(ranges, std::back_inserter(room), empty);
  return room;
}

void check_inputs(const ArgumentCheck& check, const Tensor& query, const Tensor& key, const Tensor& value,
                  const HeadShape& heads) {
  check_heads(check, heads);
  check.float_matrix("query", query);
  check.float_matrix("key", key);
  check.window("query", query, query.dtype(), {query.rows(), heads.heads * heads.head_dim});
  check.window("key", key, query.dtype(), {key.rows(), heads.kv_heads * heads.head_dim});
  check.window("value", value, query.dtype(), key.shape());
}

}  // namespace

void attention(Context& ctx, const Tensor& out, const Tensor& lse, const Tensor& query, const Tensor& key,
               const Tensor& value, const HeadShape& heads, const std::vector<AttentionRange>& ranges, double scale) {
  const ArgumentCheck check(ctx, "attention");
  check_inputs(check, query, key, value, heads);
  check.window("out", out, query.dtype(), query.shape());
  check.disjoint("out", out, "query", query);
  check.disjoint("out", out, "key", key);
  check.disjoint("out", out, "value", value);
  if (lse.defined()) {
    check.whole("lse", lse, statistics_dtype(query.dtype()), {query.rows(), heads.heads});
    check.disjoint("lse", lse, "out", out);
  }
  std::vector<AttentionRange> room;
  const auto& held = checked_ranges("attention", ranges, query.rows(), key.rows(), room);
  if (query.rows() == 0) {
    return;
  }
  dispatch_all<AttentionArgs>(ctx, "attention", cpu::attention_list(), cuda::attention_list(), ref::attention_list(),
                              {out, lse, query, key, value, heads, &held, scale});
}

void attention_grad(Context& ctx, const Tensor& d_query, const Tensor& d_key, const Tensor& d_value,
                    const Tensor& d_out, const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& out,
                    const Tensor& lse, const HeadShape& heads, const std::vector<AttentionRange>& ranges,
                    double scale) {
  const ArgumentCheck check(ctx, "attention_grad");
  check_inputs(check, query, key, value, heads);
  check.window("out", out, query.dtype(), query.shape());
  check.window("d_out", d_out, query.dtype(), query.shape());
  check.whole("lse", lse, statistics_dtype(query.dtype()), {query.rows(), heads.heads});
  check.window("d_query", d_query, query.dtype(), query.shape());
  check.window("d_key", d_key, query.dtype(), key.shape());
  check.window("d_value", d_value, query.dtype(), value.shape());
  const std::pair<const char*, const Tensor*> written[] = {
      {"d_query", &d_query}, {"d_key", &d_key}, {"d_value", &d_value}};
  const std::pair<const char*, const Tensor*> read[] = {{"d_out", &d_out}, {"query", &query}, {"key", &key},
                                                        {"value", &value}, {"out", &out},     {"lse", &lse}};
  for (const auto& [name, tensor] : written) {
    for (const auto& [other_name, other] : read) {
      check.disjoint(name, *tensor, other_name, *other);
    }
  }
  check.disjoint("d_query", d_query, "d_key", d_key);
  check.disjoint("d_query", d_query, "d_value", d_value);
  check.disjoint("d_key", d_key, "d_value", d_value);
  std::vector<AttentionRange> room;
  const auto& held = checked_ranges("attention_grad", ranges, query.rows(), key.rows(), room);
  if (query.rows() == 0 || key.rows() == 0) {
    zero(ctx, d_query);
    zero(ctx, d_key);
    zero(ctx, d_value);
    return;
  }
  dispatch_all<AttentionGradArgs>(ctx, "attention_grad", cpu::attention_grad_list(), cuda::attention_grad_list(),
                                  ref::attention_grad_list(),
                                  {d_query, d_key, d_value, d_out, query, key, value, out, lse, heads, &held, scale});
}

}  // namespace caravan::ops

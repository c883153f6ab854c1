#include "caravan/ops/decoding.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"
#include "caravan/ops/elementwise.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops {
namespace {

// Where the indices are host memory their values are at hand, and the ops that take values serve.
bool by_values(const Context& ctx) {
  return ctx.backend != Backend::kCuda;
}

std::int64_t at_index(const std::vector<double>& values, std::int64_t i) {
  return static_cast<std::int64_t>(values[static_cast<std::size_t>(i)]);
}

std::int32_t largest_of(std::span<const double> row) {
  std::size_t best = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (std::isnan(row[i])) {
      return -1;
    }
    best = row[i] > row[best] ? i : best;
  }
  return row[best] == -INFINITY ? -1 : static_cast<std::int32_t>(best);
}

}  // namespace

void append_rows(Context& ctx, const Tensor& dst, const Tensor& src, const Tensor& at) {
  const ArgumentCheck check(ctx, "append_rows");
  check.float_matrix("dst", dst);
  check.window("src", src, dst.dtype(), {src.rows(), dst.columns()});
  check.whole("at", at, DType::kI32, {src.rows()});
  check.disjoint("dst", dst, "src", src);
  check.disjoint("dst", dst, "at", at);
  if (src.elements() == 0) {
    return;
  }
  if (!by_values(ctx)) {
    dispatch<AppendRowsArgs>(ctx, "append_rows", cuda::append_rows_list(), {dst, src, at});
    return;
  }
  const std::vector<double> rows = ctx.dry_run() ? std::vector<double>{} : to_doubles(at);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(rows.size()); ++i) {
    const std::int64_t row = at_index(rows, i);
    if (row >= 0 && row < dst.rows()) {
      convert(ctx, dst.row_range(row, row + 1), src.row_range(i, i + 1));
    }
  }
}

void cached_attention(Context& ctx, const Tensor& out, const Tensor& query, const Tensor& key, const Tensor& value,
                      const HeadShape& heads, const Tensor& begins, const Tensor& lengths, std::int64_t max_length,
                      double scale) {
  const ArgumentCheck check(ctx, "cached_attention");
  check.require(heads.heads >= 1 && heads.kv_heads >= 1 && heads.head_dim >= 1 && heads.heads % heads.kv_heads == 0,
                "heads", "positive numbers, heads a multiple of kv_heads", "others");
  check.float_matrix("query", query);
  const std::int64_t n = query.rows();
  const std::int64_t narrow = heads.kv_heads * heads.head_dim;
  check.window("query", query, query.dtype(), {n, heads.heads * heads.head_dim});
  check.window("out", out, query.dtype(), {n, heads.heads * heads.head_dim});
  check.float_matrix("key", key);
  check.window("key", key, query.dtype(), {key.rows(), narrow});
  check.window("value", value, query.dtype(), {key.rows(), narrow});
  check.whole("begins", begins, DType::kI32, {n});
  check.whole("lengths", lengths, DType::kI32, {n});
  check.disjoint("out", out, "query", query);
  check.disjoint("out", out, "key", key);
  check.disjoint("out", out, "value", value);
  if (n == 0) {
    return;
  }
  if (!by_values(ctx)) {
    dispatch<CachedAttentionArgs>(ctx, "cached_attention", cuda::cached_attention_list(),
                                  {out, query, key, value, heads, begins, lengths, max_length, scale});
    return;
  }
  std::vector<AttentionRange> ranges;
  const std::vector<double> from = ctx.dry_run() ? std::vector<double>{} : to_doubles(begins);
  const std::vector<double> count = ctx.dry_run() ? std::vector<double>{} : to_doubles(lengths);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(from.size()); ++i) {
    const std::int64_t length = std::min(at_index(count, i), max_length);
    if (length > 0) {
      ranges.push_back({i, i + 1, at_index(from, i), at_index(from, i) + length, length});
    }
  }
  attention(ctx, out, Tensor(), query, key, value, heads, ranges, scale);
}

void argmax(Context& ctx, const Tensor& ids, const Tensor& logits) {
  const ArgumentCheck check(ctx, "argmax");
  check.float_matrix("logits", logits);
  check.require(size_of(logits.dtype()) >= 4, "logits", "f32 or f64", to_string(logits));
  check.whole("logits", logits, logits.dtype(), logits.shape());
  check.require(logits.columns() > 0, "logits", "at least one column", to_string(logits));
  check.whole("ids", ids, DType::kI32, {logits.rows()});
  check.disjoint("ids", ids, "logits", logits);
  if (logits.rows() == 0) {
    return;
  }
  if (!by_values(ctx)) {
    dispatch<ArgmaxArgs>(ctx, "argmax", cuda::argmax_list(), {ids, logits});
    return;
  }
  if (ctx.dry_run()) {
    return;
  }
  const std::vector<double> values = to_doubles(logits);
  std::vector<std::int32_t> found;
  for (std::int64_t row = 0; row < logits.rows(); ++row) {
    found.push_back(largest_of(std::span(values).subspan(static_cast<std::size_t>(row * logits.columns()),
                                                         static_cast<std::size_t>(logits.columns()))));
  }
  copy_from_host(ids, std::as_bytes(std::span(found)));
}

void count_up(Context& ctx, const Tensor& values) {
  const ArgumentCheck check(ctx, "count_up");
  check.whole("values", values, DType::kI32, {values.rows()});
  if (values.elements() == 0) {
    return;
  }
  if (!by_values(ctx)) {
    dispatch<CountUpArgs>(ctx, "count_up", cuda::count_up_list(), {values});
    return;
  }
  if (ctx.dry_run()) {
    return;
  }
  std::vector<std::int32_t> counted;
  for (const double value : to_doubles(values)) {
    counted.push_back(static_cast<std::int32_t>(value) + 1);
  }
  copy_from_host(values, std::as_bytes(std::span(counted)));
}

}  // namespace caravan::ops

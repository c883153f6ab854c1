// For every query row and head: the scores of all keys that its ranges show, their softmax, the weighted sum of values.
#include "caravan/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/ref/attention_ranges.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

// The most keys that any query sees: the scores one head needs room for.
std::int64_t most_keys(const std::vector<AttentionRange>& ranges) {
  std::int64_t most = 0;
  for (const Group& group : groups(ranges)) {
    std::int64_t keys = 0;
    for (std::size_t i = group.first; i < group.last; ++i) {
      keys += ranges[i].key_end - ranges[i].key_begin;
    }
    most = std::max(most, keys);
  }
  return most;
}

// One query row of one head.  S: the dtype of lse.  scores: room for every visible key.
template <typename T, typename S>
void attend(const AttentionArgs& args, const Group& group, std::int64_t q, std::int64_t h, double* scores) {
  const std::int64_t dim = args.heads.head_dim;
  const std::int64_t kv_head = h / (args.heads.heads / args.heads.kv_heads);
  const Rows<const T> key(args.key);
  const Rows<const T> value(args.value);
  const T* query = Rows<const T>(args.query)[q] + h * dim;
  T* out = Rows<T>(args.out)[q] + h * dim;

  double maximum = -std::numeric_limits<double>::infinity();
  std::int64_t keys = 0;
  for_visible_keys(*args.ranges, group, q, [&](std::int64_t k) {
    double dot = 0;
    for (std::int64_t d = 0; d < dim; ++d) {
      dot += load(query[d]) * load(key[k][kv_head * dim + d]);
    }
    scores[keys] = args.scale * dot;
    maximum = std::max(maximum, scores[keys]);
    ++keys;
  });
  if (keys == 0) {
    return;
  }
  double denominator = 0;
  for (std::int64_t i = 0; i < keys; ++i) {
    scores[i] = std::exp(scores[i] - maximum);
    denominator += scores[i];
  }
  for (std::int64_t d = 0; d < dim; ++d) {
    double sum = 0;
    std::int64_t i = 0;
    for_visible_keys(*args.ranges, group, q,
                     [&](std::int64_t k) { sum += scores[i++] * load(value[k][kv_head * dim + d]); });
    out[d] = round_to<T>(sum / denominator);
  }
  if (args.lse.defined()) {
    Rows<S>(args.lse)[q][h] = round_to<S>(maximum + std::log(denominator));
  }
}

template <typename T, typename S>
void run_typed(const Context& ctx, const AttentionArgs& args, double* scratch) {
  const std::int64_t queries = args.query.rows();
  const std::int64_t dim = args.heads.head_dim;
  const std::vector<Group> list = groups(*args.ranges);
  const std::int64_t room = most_keys(*args.ranges);

  parallel_for(ctx.threads, args.heads.heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t h = begin; h < end; ++h) {
      // What a row without visible keys keeps.
      for (std::int64_t q = 0; q < queries; ++q) {
        std::fill_n(Rows<T>(args.out)[q] + h * dim, dim, T{});
        if (args.lse.defined()) {
          Rows<S>(args.lse)[q][h] = -std::numeric_limits<S>::infinity();
        }
      }
      for (const Group& group : list) {
        const AttentionRange& any = (*args.ranges)[group.first];
        for (std::int64_t q = any.query_begin; q < any.query_end; ++q) {
          attend<T, S>(args, group, q, h, scratch + h * room);
        }
      }
    }
  });
}

std::int64_t workspace(Context&, const AttentionArgs& args) {
  return args.heads.heads * most_keys(*args.ranges) * static_cast<std::int64_t>(sizeof(double));
}

void run(Context& ctx, const AttentionArgs& args, std::byte* scratch) {
  auto* scores = reinterpret_cast<double*>(scratch);
  with_float_types(args.query.dtype(), [&]<typename T, typename S>() { run_typed<T, S>(ctx, args, scores); });
}

constexpr Implementation<AttentionArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, workspace, run}};

}  // namespace

ImplementationList<AttentionArgs> attention_list() {
  return kList;
}

}  // namespace caravan::ops::ref

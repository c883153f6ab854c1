// For every query row and head: the scores of all keys that its ranges show, their softmax, the weighted sum of values.
#include "caravan/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

// The ranges [first, last) of the list that have the same query rows.
struct Group {
  std::size_t first;
  std::size_t last;
};

std::vector<Group> groups(const std::vector<AttentionRange>& ranges) {
  std::vector<Group> result;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (i == 0 || ranges[i].query_begin != ranges[i - 1].query_begin ||
        ranges[i].query_end != ranges[i - 1].query_end) {
      result.push_back({i, i});
    }
    result.back().last = i + 1;
  }
  return result;
}

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

// Calls body(k) for every key row that query row q sees, range by range.
template <typename Body>
void for_visible_keys(const AttentionArgs& args, const Group& group, std::int64_t q, const Body& body) {
  for (std::size_t i = group.first; i < group.last; ++i) {
    const AttentionRange& range = (*args.ranges)[i];
    for (std::int64_t k = range.key_begin; k < range.key_end; ++k) {
      // As AttentionRange says, turned round: a diagonal that masks nothing may be near 2^63.
      if ((k - range.key_begin) - (q - range.query_begin) <= range.diagonal) {
        body(k);
      }
    }
  }
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
  for_visible_keys(args, group, q, [&](std::int64_t k) {
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
    for_visible_keys(args, group, q, [&](std::int64_t k) { sum += scores[i++] * load(value[k][kv_head * dim + d]); });
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
  with_float_type(args.query.dtype(), [&]<typename T>() {
    if (args.query.dtype() == DType::kF64) {
      run_typed<T, double>(ctx, args, scores);
    } else {
      run_typed<T, float>(ctx, args, scores);
    }
  });
}

constexpr Implementation<AttentionArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, workspace, run}};

}  // namespace

ImplementationList<AttentionArgs> attention_list() {
  return kList;
}

}  // namespace caravan::ops::ref

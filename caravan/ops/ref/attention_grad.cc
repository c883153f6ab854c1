// The gradients of attention: every probability is made again from lse, once for its query's row of d_query and once
// for its key's rows of d_key and d_value.
#include <algorithm>
#include <cmath>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/ref/attention_ranges.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

// P[q, h, k] and dS[q, h, k].
struct Pair {
  double probability;
  double d_score;
};

// S: the dtype of lse.
template <typename T, typename S>
class Gradients {
 public:
  // scratch: as workspace() says.
  Gradients(const AttentionGradArgs& args, double* scratch)
      : args_(args),
        dim_(args.heads.head_dim),
        group_(args.heads.heads / args.heads.kv_heads),
        query_(args.query),
        key_(args.key),
        value_(args.value),
        d_out_(args.d_out),
        lse_(args.lse),
        products_(scratch),
        sums_(scratch + args.heads.heads * args.query.rows()) {}

  // D[q, h] = <d_out[q, h], out[q, h]> of the rows that a range covers, and d_query.
  void of_query_head(std::int64_t h, const std::vector<Group>& list) const {
    const Rows<const T> out(args_.out);
    const Rows<T> d_query(args_.d_query);
    double* sum = sums_ + 2 * h * dim_;
    for (std::int64_t q = 0; q < args_.query.rows(); ++q) {
      std::fill_n(d_query[q] + h * dim_, dim_, T{});
    }
    for (const Group& group : list) {
      const AttentionRange& any = (*args_.ranges)[group.first];
      for (std::int64_t q = any.query_begin; q < any.query_end; ++q) {
        products_[h * args_.query.rows() + q] = dot(d_out_[q] + h * dim_, out[q] + h * dim_);
        std::fill_n(sum, dim_, 0.0);
        for_visible_keys(*args_.ranges, group, q, [&](std::int64_t k) {
          const double d_score = pair(q, h, k).d_score;
          for (std::int64_t d = 0; d < dim_; ++d) {
            sum[d] += d_score * load(key_[k][h / group_ * dim_ + d]);
          }
        });
        for (std::int64_t d = 0; d < dim_; ++d) {
          d_query[q][h * dim_ + d] = round_to<T>(args_.scale * sum[d]);
        }
      }
    }
  }

  // d_key and d_value of one key head; after of_query_head() of every query head.
  void of_key_head(std::int64_t kv_head) const {
    const Rows<T> d_key(args_.d_key);
    const Rows<T> d_value(args_.d_value);
    double* key_sum = sums_ + 2 * kv_head * group_ * dim_;
    double* value_sum = key_sum + dim_;
    for (std::int64_t k = 0; k < args_.key.rows(); ++k) {
      std::fill_n(key_sum, 2 * dim_, 0.0);
      for (std::int64_t h = kv_head * group_; h < (kv_head + 1) * group_; ++h) {
        for_seeing_queries(*args_.ranges, k, [&](std::int64_t q) {
          const Pair p = pair(q, h, k);
          for (std::int64_t d = 0; d < dim_; ++d) {
            key_sum[d] += p.d_score * load(query_[q][h * dim_ + d]);
            value_sum[d] += p.probability * load(d_out_[q][h * dim_ + d]);
          }
        });
      }
      for (std::int64_t d = 0; d < dim_; ++d) {
        d_key[k][kv_head * dim_ + d] = round_to<T>(args_.scale * key_sum[d]);
        d_value[k][kv_head * dim_ + d] = round_to<T>(value_sum[d]);
      }
    }
  }

 private:
  double dot(const T* a, const T* b) const {
    double sum = 0;
    for (std::int64_t d = 0; d < dim_; ++d) {
      sum += load(a[d]) * load(b[d]);
    }
    return sum;
  }

  Pair pair(std::int64_t q, std::int64_t h, std::int64_t k) const {
    const std::int64_t column = h / group_ * dim_;
    const double score = args_.scale * dot(query_[q] + h * dim_, key_[k] + column);
    const double probability = std::exp(score - load(lse_[q][h]));
    const double d_probability = dot(d_out_[q] + h * dim_, value_[k] + column);
    return {probability, probability * (d_probability - products_[h * args_.query.rows() + q])};
  }

  const AttentionGradArgs& args_;
  std::int64_t dim_;
  std::int64_t group_;
  Rows<const T> query_, key_, value_, d_out_;
  Rows<const S> lse_;
  double* products_;  // D, [heads, queries]
  double* sums_;      // [heads, 2, head_dim]
};

std::int64_t workspace(Context&, const AttentionGradArgs& args) {
  return args.heads.heads * (args.query.rows() + 2 * args.heads.head_dim) * static_cast<std::int64_t>(sizeof(double));
}

void run(Context& ctx, const AttentionGradArgs& args, std::byte* scratch) {
  const std::vector<Group> list = groups(*args.ranges);
  with_float_types(args.query.dtype(), [&]<typename T, typename S>() {
    const Gradients<T, S> gradients(args, reinterpret_cast<double*>(scratch));
    parallel_for(ctx.threads, args.heads.heads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t h = begin; h < end; ++h) {
        gradients.of_query_head(h, list);
      }
    });
    parallel_for(ctx.threads, args.heads.kv_heads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t h = begin; h < end; ++h) {
        gradients.of_key_head(h);
      }
    });
  });
}

constexpr Implementation<AttentionGradArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, workspace, run}};

}  // namespace

ImplementationList<AttentionGradArgs> attention_grad_list() {
  return kList;
}

}  // namespace caravan::ops::ref

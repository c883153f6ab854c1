// Cuts an attention call into tasks of (queries, key head, piece of the keys) and runs them on the context's threads.
//
// The cut depends on the arguments alone and every task writes rows of its own, so the result does not depend on which
// thread runs what, or on how many there are.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <vector>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cpu/kernel_choice.h"

namespace caravan::ops::cpu {
namespace {

// Rows (queries times heads of a group) that meet a packed tile of keys: enough that packing costs a few percent.
constexpr std::int64_t kRowsPerTask = 96;
// Keys of a piece, where a decode step's long row of keys is cut so that all threads work on it.
constexpr std::int64_t kKeysPerPiece = 1024;

struct Task {
  std::int64_t first_range, ranges;
  std::int64_t query_begin, queries;
  std::int64_t kv_head;
  std::int64_t piece, pieces;
  std::int64_t partial;  // offset of the piece's floats, when there are several pieces
  std::int64_t cost;
};

struct Plan {
  std::vector<Task> tasks;
  std::int64_t partial_floats = 0;
  std::int64_t task_queries = 0;  // of the largest task
};

std::int64_t queries_per_task(const HeadShape& heads) {
  return std::max<std::int64_t>(1, kRowsPerTask / (heads.heads / heads.kv_heads));
}

// The tasks of ranges [first, last), which are those of one set of queries.
void add_tasks(Plan& plan, const AttentionArgs& args, std::size_t first, std::size_t last) {
  const std::vector<AttentionRange>& ranges = *args.ranges;
  const AttentionRange& one = ranges[first];
  const std::int64_t block = queries_per_task(args.heads);
  const std::int64_t rows = (one.query_end - one.query_begin) * (args.heads.heads / args.heads.kv_heads);
  std::int64_t longest = 0;
  for (std::size_t i = first; i < last; ++i) {
    longest = std::max(longest, ranges[i].key_end - ranges[i].key_begin);
  }
  const bool few = one.query_end - one.query_begin <= block;
  const std::int64_t pieces = few ? std::max<std::int64_t>(1, (longest + kKeysPerPiece - 1) / kKeysPerPiece) : 1;
  for (std::int64_t head = 0; head < args.heads.kv_heads; ++head) {
    for (std::int64_t begin = one.query_begin; begin < one.query_end; begin += block) {
      const std::int64_t queries = std::min(block, one.query_end - begin);
      std::int64_t keys = 0;
      for (std::size_t i = first; i < last; ++i) {
        const std::int64_t length = ranges[i].key_end - ranges[i].key_begin;
        const std::int64_t before = begin + queries - one.query_begin;
        keys += ranges[i].diagonal > length ? length : std::min(length, ranges[i].diagonal + before);
      }
      for (std::int64_t piece = 0; piece < pieces; ++piece) {
        plan.tasks.push_back({.first_range = static_cast<std::int64_t>(first),
                              .ranges = static_cast<std::int64_t>(last - first),
                              .query_begin = begin,
                              .queries = queries,
                              .kv_head = head,
                              .piece = piece,
                              .pieces = pieces,
                              .partial = plan.partial_floats,
                              .cost = queries * keys / pieces});
        if (pieces > 1) {
          plan.partial_floats += rows * (args.heads.head_dim + 2);
        }
      }
      plan.task_queries = std::max(plan.task_queries, queries);
    }
  }
}

Plan plan_of(const AttentionArgs& args) {
  Plan plan;
  const std::vector<AttentionRange>& ranges = *args.ranges;
  for (std::size_t first = 0; first < ranges.size();) {
    std::size_t last = first;
    while (last < ranges.size() && ranges[last].query_begin == ranges[first].query_begin &&
           ranges[last].query_end == ranges[first].query_end) {
      ++last;
    }
    add_tasks(plan, args, first, last);
    first = last;
  }
  return plan;
}

AttentionShape shape_of(const AttentionArgs& args) {
  return {.element = element_of(args.query.dtype()),
          .out = rows_of(args.out),
          .query = rows_of(args.query),
          .key = rows_of(args.key),
          .value = rows_of(args.value),
          .lse = args.lse.defined() ? reinterpret_cast<float*>(args.lse.address()) : nullptr,
          .heads = args.heads.heads,
          .kv_heads = args.heads.kv_heads,
          .head_dim = args.heads.head_dim,
          .scale = static_cast<float>(args.scale)};
}

std::int64_t threads_of(const Context& ctx, const Plan& plan) {
  return std::min<std::int64_t>(ctx.threads, static_cast<std::int64_t>(plan.tasks.size()));
}

// Floats, then the threads' scratch behind the partials.
std::int64_t workspace(Context& ctx, const AttentionArgs& args) {
  const Plan plan = plan_of(args);
  const std::int64_t scratch = kernels_for(ctx.isa).attention_scratch(shape_of(args), plan.task_queries);
  return (plan.partial_floats + threads_of(ctx, plan) * scratch) * static_cast<std::int64_t>(sizeof(float));
}

// Rows that no range covers.
void clear_uncovered(const AttentionArgs& args) {
  const std::int64_t size = size_of(args.out.dtype());
  const auto clear = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::memset(args.out.address() + row * args.out.row_stride() * size, 0,
                  static_cast<std::size_t>(args.out.columns() * size));
      if (args.lse.defined()) {
        float* lse = reinterpret_cast<float*>(args.lse.address()) + row * args.heads.heads;
        std::fill(lse, lse + args.heads.heads, -std::numeric_limits<float>::infinity());
      }
    }
  };
  std::int64_t covered = 0;
  for (const AttentionRange& range : *args.ranges) {
    clear(covered, range.query_begin);
    covered = std::max(covered, range.query_end);
  }
  clear(covered, args.out.rows());
}

void run_tasks(Context& ctx, const AttentionArgs& args, const AttentionShape& shape, const Plan& plan, float* workspace,
               bool pairs) {
  const Kernels& kernels = kernels_for(ctx.isa);
  const auto kernel = pairs ? kernels.attention_pairs : kernels.attention;
  std::vector<KeyRange> ranges;
  ranges.reserve(args.ranges->size());
  for (const AttentionRange& range : *args.ranges) {
    ranges.push_back({range.query_begin, range.query_end, range.key_begin, range.key_end, range.diagonal});
  }
  // The dearest first, so that no thread is left with a long one at the end.
  std::vector<std::uint32_t> order(plan.tasks.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<std::uint32_t>(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return plan.tasks[a].cost > plan.tasks[b].cost; });
  const std::int64_t scratch_floats = kernels.attention_scratch(shape, plan.task_queries);
  const std::int64_t threads = threads_of(ctx, plan);
  std::atomic<std::size_t> next = 0;
  parallel_for(static_cast<int>(threads), threads, 1, [&](std::int64_t begin, std::int64_t) {
    float* scratch = workspace + plan.partial_floats + begin * scratch_floats;
    for (std::size_t i = next++; i < order.size(); i = next++) {
      const Task& task = plan.tasks[order[i]];
      const bool whole = task.pieces == 1;
      kernel(shape,
             {.ranges = ranges.data() + task.first_range,
              .count = task.ranges,
              .query_begin = task.query_begin,
              .queries = task.queries,
              .kv_head = task.kv_head,
              .key_limit_begin = task.piece * kKeysPerPiece,
              .key_limit_end = whole ? std::numeric_limits<std::int64_t>::max() : (task.piece + 1) * kKeysPerPiece,
              .partial = whole ? nullptr : workspace + task.partial},
             scratch);
    }
  });
}

template <bool kPairs>
void run(Context& ctx, const AttentionArgs& args, std::byte* bytes) {
  clear_uncovered(args);
  const Plan plan = plan_of(args);
  if (plan.tasks.empty()) {
    return;
  }
  const AttentionShape shape = shape_of(args);
  auto* workspace = reinterpret_cast<float*>(bytes);
  run_tasks(ctx, args, shape, plan, workspace, kPairs);
  for (const Task& task : plan.tasks) {
    if (task.pieces > 1 && task.piece == 0) {
      kernels_for(ctx.isa).attention_merge(shape, {.partials = workspace + task.partial,
                                                   .pieces = task.pieces,
                                                   .query_begin = task.query_begin,
                                                   .queries = task.queries,
                                                   .kv_head = task.kv_head});
    }
  }
}

const char* refuse(const Context&, const AttentionArgs& args) {
  return has_kernels(args.query.dtype()) ? nullptr : kNoF64;
}

const char* refuse_pair_kernels(const Context& ctx, const AttentionArgs& args) {
  return refuse_pairs(ctx, args.query.dtype(), args.heads.head_dim, {args.query.row_stride(), args.key.row_stride()});
}

}  // namespace

ImplementationList<AttentionArgs> attention_list() {
  static const auto kList = with_pairs<AttentionArgs>(refuse_pair_kernels, workspace, run<true>,
                                                      simd_list<AttentionArgs>(refuse, workspace, run<false>));
  return kList;
}

}  // namespace caravan::ops::cpu

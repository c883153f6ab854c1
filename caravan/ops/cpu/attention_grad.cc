// Cuts attention's backward into tasks of (queries and keys that see each other, key head, piece of the keys) and runs
// them on the context's threads.
//
// Ranges that share queries or keys make one island: no gradient belongs to two islands.  An island's keys are cut into
// blocks; where islands and key heads are few, the blocks are dealt out to several pieces, whose sums for d_query are
// added up in order.  The cut depends on the arguments alone, so the result does not depend on the threads.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <vector>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cpu/kernel_choice.h"

namespace caravan::ops::cpu {
namespace {

// Tasks that keep a machine's cores busy; fewer are cut into pieces.
constexpr std::int64_t kWantedTasks = 24;
constexpr std::int64_t kMostPieces = 4;
// What the sums of pieces may take together: beyond, there is one piece and the sums are a thread's own.
constexpr std::int64_t kMostPieceFloats = std::int64_t{1} << 26;

struct Island {
  std::vector<AttentionGradRange> ranges;
  std::vector<KeyBlock> blocks;
  std::int64_t rows = 0;  // of different queries
  std::int64_t cost = 0;  // query-key pairs, more or less
};

struct Plan {
  std::vector<Island> islands;
  std::int64_t pieces = 1;
  std::int64_t largest_rows = 0;
};

bool meets(const AttentionRange& a, const AttentionRange& b) {
  return a.query_begin == b.query_begin || (a.key_begin < b.key_end && b.key_begin < a.key_end);
}

// The island of each range: a number below the count of ranges, the same for all of an island.
std::vector<std::size_t> islands_of(const std::vector<AttentionRange>& ranges) {
  std::vector<std::size_t> parent(ranges.size());
  std::iota(parent.begin(), parent.end(), std::size_t{0});
  const auto root_of = [&](std::size_t i) {
    while (parent[i] != i) {
      i = parent[i] = parent[parent[i]];
    }
    return i;
  };
  const auto join = [&](std::size_t a, std::size_t b) {
    const std::size_t low = std::min(root_of(a), root_of(b));
    const std::size_t high = std::max(root_of(a), root_of(b));
    parent[high] = low;
  };
  std::vector<std::size_t> by_key(ranges.size());
  std::iota(by_key.begin(), by_key.end(), std::size_t{0});
  std::stable_sort(by_key.begin(), by_key.end(),
                   [&](std::size_t a, std::size_t b) { return ranges[a].key_begin < ranges[b].key_begin; });
  std::size_t furthest = 0;  // of those before, the range whose keys reach furthest
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i - 1].query_begin == ranges[i].query_begin) {
      join(i - 1, i);
    }
    if (ranges[by_key[furthest]].key_end < ranges[by_key[i - 1]].key_end) {
      furthest = i - 1;
    }
    if (meets(ranges[by_key[furthest]], ranges[by_key[i]])) {
      join(by_key[furthest], by_key[i]);
    }
  }
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    parent[i] = root_of(i);
  }
  return parent;
}

// Blocks over every key of some range, and over no other: those others may hold NaN.
void add_blocks(Island& island) {
  std::vector<KeyBlock> spans;
  for (const AttentionGradRange& one : island.ranges) {
    spans.push_back({one.range.key_begin, one.range.key_end});
  }
  std::sort(spans.begin(), spans.end(), [](const KeyBlock& a, const KeyBlock& b) { return a.begin < b.begin; });
  std::size_t count = 0;
  for (const KeyBlock& span : spans) {
    if (count > 0 && span.begin <= spans[count - 1].end) {
      spans[count - 1].end = std::max(spans[count - 1].end, span.end);
    } else {
      spans[count++] = span;
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    for (std::int64_t begin = spans[i].begin; begin < spans[i].end; begin += kAttentionGradKeys) {
      island.blocks.push_back({begin, std::min(begin + kAttentionGradKeys, spans[i].end)});
    }
  }
}

Plan plan_of(const AttentionGradArgs& args) {
  const std::vector<AttentionRange>& ranges = *args.ranges;
  Plan plan;
  const std::vector<std::size_t> roots = islands_of(ranges);
  std::vector<std::size_t> place(ranges.size());
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    if (roots[i] == i) {
      place[i] = plan.islands.size();
      plan.islands.emplace_back();
    }
    Island& island = plan.islands[place[roots[i]]];
    const AttentionRange& range = ranges[i];
    const bool repeated = i > 0 && ranges[i - 1].query_begin == range.query_begin;
    const std::int64_t queries = range.query_end - range.query_begin;
    const std::int64_t row = repeated ? island.ranges.back().row : island.rows;
    island.ranges.push_back(
        {{range.query_begin, range.query_end, range.key_begin, range.key_end, range.diagonal}, row, repeated});
    island.rows += repeated ? 0 : queries;
    island.cost += queries * (range.key_end - range.key_begin);
  }
  std::int64_t rows = 0;
  for (Island& island : plan.islands) {
    add_blocks(island);
    plan.largest_rows = std::max(plan.largest_rows, island.rows);
    rows += island.rows;
  }
  const std::int64_t tasks = std::max<std::int64_t>(1, std::ssize(plan.islands) * args.heads.kv_heads);
  plan.pieces = std::min(kMostPieces, (kWantedTasks + tasks - 1) / tasks);
  if (plan.pieces * rows * args.heads.heads * args.heads.head_dim > kMostPieceFloats) {
    plan.pieces = 1;
  }
  return plan;
}

AttentionGradShape shape_of(const AttentionGradArgs& args) {
  return {.element = element_of(args.query.dtype()),
          .d_query = rows_of(args.d_query),
          .d_key = rows_of(args.d_key),
          .d_value = rows_of(args.d_value),
          .d_out = rows_of(args.d_out),
          .query = rows_of(args.query),
          .key = rows_of(args.key),
          .value = rows_of(args.value),
          .out = rows_of(args.out),
          .lse = reinterpret_cast<const float*>(args.lse.address()),
          .heads = args.heads.heads,
          .kv_heads = args.heads.kv_heads,
          .head_dim = args.heads.head_dim,
          .scale = static_cast<float>(args.scale)};
}

// Floats of one task's sums of `rows` rows.
std::int64_t sums_floats(const AttentionGradArgs& args, std::int64_t rows) {
  return rows * (args.heads.heads / args.heads.kv_heads) * ((args.heads.head_dim + 15) / 16 * 16);
}

std::int64_t tasks_of(const Plan& plan, const AttentionGradArgs& args) {
  return std::ssize(plan.islands) * args.heads.kv_heads * plan.pieces;
}

std::int64_t threads_of(const Context& ctx, const Plan& plan, const AttentionGradArgs& args) {
  return std::min<std::int64_t>(ctx.threads, tasks_of(plan, args));
}

// Floats of the sums that outlive their task: all, when pieces are to be added up.
std::int64_t kept_floats(const Plan& plan, const AttentionGradArgs& args) {
  std::int64_t floats = 0;
  for (const Island& island : plan.islands) {
    floats += sums_floats(args, island.rows) * args.heads.kv_heads * plan.pieces;
  }
  return plan.pieces > 1 ? floats : 0;
}

std::int64_t scratch_floats(const Context& ctx, const Plan& plan, const AttentionGradArgs& args, bool pairs) {
  const Kernels& kernels = kernels_for(ctx.isa);
  return (pairs ? kernels.attention_grad_pairs_scratch : kernels.attention_grad_scratch)(shape_of(args),
                                                                                         plan.largest_rows);
}

// A thread's own: the kernel's scratch, and the sums where they do not outlive the task.
std::int64_t thread_floats(const Context& ctx, const Plan& plan, const AttentionGradArgs& args, bool pairs) {
  return scratch_floats(ctx, plan, args, pairs) + (plan.pieces > 1 ? 0 : sums_floats(args, plan.largest_rows));
}

template <bool kPairs>
std::int64_t workspace(Context& ctx, const AttentionGradArgs& args) {
  const Plan plan = plan_of(args);
  return (kept_floats(plan, args) + threads_of(ctx, plan, args) * thread_floats(ctx, plan, args, kPairs)) *
         static_cast<std::int64_t>(sizeof(float));
}

void clear_rows(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
  const std::int64_t size = size_of(tensor.dtype());
  for (std::int64_t row = begin; row < end; ++row) {
    std::memset(tensor.address() + row * tensor.row_stride() * size, 0,
                static_cast<std::size_t>(tensor.columns() * size));
  }
}

// Rows that no range covers.
void clear_uncovered(const AttentionGradArgs& args, const Plan& plan) {
  std::int64_t covered = 0;
  for (const AttentionRange& range : *args.ranges) {
    clear_rows(args.d_query, covered, range.query_begin);
    covered = std::max(covered, range.query_end);
  }
  clear_rows(args.d_query, covered, args.d_query.rows());
  std::vector<KeyBlock> blocks;
  for (const Island& island : plan.islands) {
    blocks.insert(blocks.end(), island.blocks.begin(), island.blocks.end());
  }
  std::sort(blocks.begin(), blocks.end(), [](const KeyBlock& a, const KeyBlock& b) { return a.begin < b.begin; });
  covered = 0;
  for (const KeyBlock& block : blocks) {
    clear_rows(args.d_key, covered, block.begin);
    clear_rows(args.d_value, covered, block.begin);
    covered = block.end;
  }
  clear_rows(args.d_key, covered, args.d_key.rows());
  clear_rows(args.d_value, covered, args.d_value.rows());
}

struct Task {
  const Island* island;
  std::int64_t kv_head;
  std::int64_t piece;
  float* sums;  // null: the thread's own
};

AttentionGradMerge merge_of(const Task& task, const float* sums, std::int64_t pieces) {
  return {.ranges = task.island->ranges.data(),
          .count = std::ssize(task.island->ranges),
          .rows = task.island->rows,
          .kv_head = task.kv_head,
          .sums = sums,
          .pieces = pieces};
}

template <bool kPairs>
void run(Context& ctx, const AttentionGradArgs& args, std::byte* bytes) {
  const Plan plan = plan_of(args);
  clear_uncovered(args, plan);
  auto* workspace = reinterpret_cast<float*>(bytes);
  std::vector<Task> tasks;
  float* sums = workspace;
  for (const Island& island : plan.islands) {
    for (std::int64_t head = 0; head < args.heads.kv_heads; ++head) {
      for (std::int64_t piece = 0; piece < plan.pieces; ++piece) {
        tasks.push_back({&island, head, piece, plan.pieces > 1 ? sums : nullptr});
        sums += plan.pieces > 1 ? sums_floats(args, island.rows) : 0;
      }
    }
  }
  if (tasks.empty()) {
    return;
  }
  // The dearest first, so that no thread is left with a long one at the end.
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task& a, const Task& b) { return a.island->cost > b.island->cost; });
  const Kernels& kernels = kernels_for(ctx.isa);
  const AttentionGradShape shape = shape_of(args);
  const auto kernel = kPairs ? kernels.attention_grad_pairs : kernels.attention_grad;
  const std::int64_t kernel_floats = scratch_floats(ctx, plan, args, kPairs);
  const std::int64_t own = thread_floats(ctx, plan, args, kPairs);
  const std::int64_t threads = threads_of(ctx, plan, args);
  float* const threads_begin = workspace + kept_floats(plan, args);
  std::atomic<std::size_t> next = 0;
  parallel_for(static_cast<int>(threads), threads, 1, [&](std::int64_t begin, std::int64_t) {
    float* const scratch = threads_begin + begin * own;
    for (std::size_t i = next++; i < tasks.size(); i = next++) {
      const Task& task = tasks[i];
      float* const here = task.sums == nullptr ? scratch + kernel_floats : task.sums;
      kernel(shape,
             {.ranges = task.island->ranges.data(),
              .count = std::ssize(task.island->ranges),
              .rows = task.island->rows,
              .kv_head = task.kv_head,
              .blocks = task.island->blocks.data(),
              .first_block = task.piece,
              .block_count = std::ssize(task.island->blocks),
              .step = plan.pieces,
              .sums = here},
             scratch);
      if (plan.pieces == 1) {
        kernels.attention_grad_merge(shape, merge_of(task, here, 1));
      }
    }
  });
  if (plan.pieces > 1) {
    parallel_for(ctx.threads, std::ssize(tasks), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Task& task = tasks[static_cast<std::size_t>(i)];
        if (task.piece == 0) {
          kernels.attention_grad_merge(shape, merge_of(task, task.sums, plan.pieces));
        }
      }
    });
  }
}

const char* refuse(const Context&, const AttentionGradArgs& args) {
  return has_kernels(args.query.dtype()) ? nullptr : kNoF64;
}

const char* refuse_pair_kernels(const Context& ctx, const AttentionGradArgs& args) {
  return refuse_pairs(
      ctx, args.query.dtype(), args.heads.head_dim,
      {args.query.row_stride(), args.key.row_stride(), args.value.row_stride(), args.d_out.row_stride()});
}

}  // namespace

ImplementationList<AttentionGradArgs> attention_grad_list() {
  static const auto kList =
      with_pairs<AttentionGradArgs>(refuse_pair_kernels, workspace<true>, run<true>,
                                    simd_list<AttentionGradArgs>(refuse, workspace<false>, run<false>));
  return kList;
}

}  // namespace caravan::ops::cpu

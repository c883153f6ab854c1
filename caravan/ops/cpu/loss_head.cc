// The loss head: tokens in chunks, the vocabulary in pieces.  A piece's logits of a chunk stay in the caches between
// the product that makes them and the running log-sum-exp that uses them; the weight is read once a chunk.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cpu/kernel_choice.h"
#include "caravan/ops/cpu/plan_cache.h"
#include "caravan/ops/host_checks.h"

namespace caravan::ops::cpu {
namespace {

constexpr std::int64_t kChunk = 512;
constexpr std::int64_t kSmallestChunk = 16;
constexpr std::int64_t kPiece = 2048;  // vocabulary entries: kChunk * kPiece logits are 4 MiB
static_assert(kPiece % kWeightBlock == 0);

// Chunks have few sizes (powers of two) so that a varying number of ignored targets makes no new plans; what a chunk
// lacks is padded with rows of zeros.
std::int64_t chunk_for(std::int64_t rows) {
  std::int64_t chunk = kSmallestChunk;
  while (chunk < rows && chunk < kChunk) {
    chunk *= 2;
  }
  return chunk;
}

bool is_native(const Context& ctx, DType dtype) {
  return dtype == DType::kF32 || (dtype == DType::kBF16 && ctx.isa >= Isa::kAvx512Bf16);
}

// Where the workspace's parts begin, in bytes, for chunks of up to `chunk` rows.
struct LossPlan {
  DType dtype = DType::kF32;
  const WeightLayout* layout = nullptr;
  std::int64_t chunk = 0;
  std::int64_t hidden = 0, logits = 0, states = 0, targets = 0, rows = 0, scratch = 0, bytes = 0;
};

std::int64_t pieces_of(std::int64_t vocab) {
  return (vocab + kPiece - 1) / kPiece;
}

Product& product_of(Context& ctx, const LossPlan& plan, std::int64_t chunk, std::int64_t piece) {
  const std::int64_t rows = std::min(kPiece, plan.layout->out - piece * kPiece);
  const ProductSpec spec{.tokens = chunk,
                         .x_dtype = plan.dtype,
                         .x_stride = plan.layout->in,
                         .y_dtype = DType::kF32,
                         .y_stride = rows,
                         .rows = rows};
  return plans_of(ctx).product(ctx.threads, spec, *plan.layout);
}

LossPlan plan_of(Context& ctx, const LossHeadArgs& args) {
  const std::int64_t vocab = args.w.plain().rows();
  const std::int64_t features = args.hidden.columns();
  LossPlan plan;
  plan.dtype = is_native(ctx, args.hidden.dtype()) ? args.hidden.dtype() : DType::kF32;
  plan.chunk = chunk_for(args.hidden.rows());
  std::int64_t scratch = 0;
  with_onednn(ctx, "loss head", [&] {
    plan.layout = &plans_of(ctx).layout(plan.dtype, features, vocab);
    if (plan.layout->blocked && product_of(ctx, plan, plan.chunk, 0).slow()) {
      plan.layout = &plans_of(ctx).plain_layout(plan.dtype, features, vocab);
    }
    // The first piece and the last are all there are; the sizes below the chunk serve what is left over at the end.
    for (std::int64_t chunk = kSmallestChunk; chunk <= plan.chunk; chunk *= 2) {
      for (const std::int64_t piece : {std::int64_t{0}, pieces_of(vocab) - 1}) {
        scratch = std::max(scratch, product_of(ctx, plan, chunk, piece).scratch_bytes());
      }
    }
  });
  const auto take = [&](std::int64_t bytes) {
    const std::int64_t here = plan.bytes;
    plan.bytes += (bytes + 63) / 64 * 64;
    return here;
  };
  plan.hidden = take(plan.chunk * features * size_of(plan.dtype));
  plan.logits = take(plan.chunk * std::min(kPiece, vocab) * size_of(DType::kF32));
  plan.states = take(plan.chunk * static_cast<std::int64_t>(sizeof(LossRowState)));
  plan.targets = take(plan.chunk * size_of(DType::kI32));
  plan.rows = take(plan.chunk * size_of(DType::kI64));
  plan.scratch = take(scratch);
  return plan;
}

void prepare(Context& ctx, const LossHeadArgs& args) {
  prepare_weight(ctx, args.w, *plan_of(ctx, args).layout);
}

std::int64_t workspace(Context& ctx, const LossHeadArgs& args) {
  return plan_of(ctx, args).bytes;
}

// One chunk: `count` rows of the call, padded to `chunk`.
struct Chunk {
  std::int64_t count, chunk;
  std::byte* hidden;
  float* logits;
  LossRowState* states;
  std::int32_t* targets;
  std::int64_t* rows;
  std::byte* scratch;
};

void gather(Context& ctx, const LossPlan& plan, const LossHeadArgs& args, const Chunk& chunk) {
  const std::int64_t features = plan.layout->in;
  const std::int64_t stored = size_of(args.hidden.dtype());
  const std::int64_t size = size_of(plan.dtype);
  const auto* targets = reinterpret_cast<const std::int32_t*>(args.targets.address());
  parallel_for(ctx.threads, chunk.chunk, grain_of(features), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::byte* to = chunk.hidden + i * features * size;
      chunk.states[i] = {-std::numeric_limits<float>::infinity(), 0.0F, 0.0F};
      if (i >= chunk.count) {
        std::memset(to, 0, static_cast<std::size_t>(features * size));
        chunk.targets[i] = -1;
        continue;
      }
      std::byte* from = args.hidden.address() + chunk.rows[i] * args.hidden.row_stride() * stored;
      chunk.targets[i] = targets[chunk.rows[i]];
      if (plan.dtype == args.hidden.dtype()) {
        std::memcpy(to, from, static_cast<std::size_t>(features * size));
      } else {
        kernels_for(ctx.isa).widen({element_of(args.hidden.dtype()), {to, features}, {from, features}, features}, 0, 1);
      }
    }
  });
}

void run_chunk(Context& ctx, const LossPlan& plan, const LossHeadArgs& args, const Chunk& chunk,
               const std::byte* weight) {
  gather(ctx, plan, args, chunk);
  const std::int64_t vocab = plan.layout->out;
  for (std::int64_t piece = 0; piece < pieces_of(vocab); ++piece) {
    const std::int64_t first = piece * kPiece;
    const std::int64_t columns = std::min(kPiece, vocab - first);
    with_onednn(ctx, "loss head", [&] {
      product_of(ctx, plan, chunk.chunk, piece)
          .run(plans_of(ctx).stream(), {.y = reinterpret_cast<std::byte*>(chunk.logits),
                                        .x = chunk.hidden,
                                        .weight = weight + weight_rows_offset(*plan.layout, first),
                                        .scratch = chunk.scratch});
    });
    const LossBlock block{.logits = chunk.logits,
                          .stride = columns,
                          .columns = columns,
                          .first = first,
                          .targets = chunk.targets,
                          .states = chunk.states};
    parallel_for(ctx.threads, chunk.count, grain_of(columns),
                 [&](std::int64_t begin, std::int64_t end) { kernels_for(ctx.isa).loss_block(block, begin, end); });
  }
  auto* nll = reinterpret_cast<float*>(args.token_nll.address());
  for (std::int64_t i = 0; i < chunk.count; ++i) {
    const LossRowState& state = chunk.states[i];
    const double logarithm = std::log(static_cast<double>(state.sum));
    nll[chunk.rows[i]] =
        static_cast<float>(logarithm + (static_cast<double>(state.maximum) - static_cast<double>(state.target)));
  }
}

void run(Context& ctx, const LossHeadArgs& args, std::byte* workspace) {
  check_targets(args.targets, args.w.plain().rows());
  const LossPlan plan = plan_of(ctx, args);
  const std::byte* weight = prepare_weight(ctx, args.w, *plan.layout);
  const auto* targets = reinterpret_cast<const std::int32_t*>(args.targets.address());
  auto* nll = reinterpret_cast<float*>(args.token_nll.address());
  Chunk chunk{.count = 0,
              .chunk = 0,
              .hidden = workspace + plan.hidden,
              .logits = reinterpret_cast<float*>(workspace + plan.logits),
              .states = reinterpret_cast<LossRowState*>(workspace + plan.states),
              .targets = reinterpret_cast<std::int32_t*>(workspace + plan.targets),
              .rows = reinterpret_cast<std::int64_t*>(workspace + plan.rows),
              .scratch = workspace + plan.scratch};
  const std::int64_t tokens = args.hidden.rows();
  for (std::int64_t row = 0; row < tokens; ++row) {
    if (targets[row] == kIgnoredTarget) {
      nll[row] = 0.0F;
    } else {
      chunk.rows[chunk.count++] = row;
    }
    if (chunk.count == plan.chunk || (row == tokens - 1 && chunk.count > 0)) {
      chunk.chunk = chunk_for(chunk.count);
      run_chunk(ctx, plan, args, chunk, weight);
      chunk.count = 0;
    }
  }
}

const char* refuse_native(const Context& ctx, const LossHeadArgs& args) {
  if (args.hidden.dtype() == DType::kF64) {
    return kNoF64;
  }
  return is_native(ctx, args.hidden.dtype()) ? nullptr : "products of this dtype need a higher level";
}

const char* refuse_widened(const Context&, const LossHeadArgs& args) {
  if (args.hidden.dtype() == DType::kF64) {
    return kNoF64;
  }
  return args.hidden.dtype() == DType::kF32 ? "f32 needs no widening" : nullptr;
}

}  // namespace

ImplementationList<LossHeadArgs> loss_head_list() {
  static const std::array<Implementation<LossHeadArgs>, 2> kList = {
      {{"onednn", Backend::kCpu, Isa::kAvx2, refuse_native, workspace, run, prepare},
       {"onednn-upcast", Backend::kCpu, Isa::kAvx2, refuse_widened, workspace, run, prepare}}};
  return kList;
}

}  // namespace caravan::ops::cpu

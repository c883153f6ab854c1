// The loss head: tokens in chunks, the vocabulary in pieces.  A piece's logits of a chunk stay in the caches between
// the product that makes them and the running log-sum-exp that uses them; the weight is read once a chunk.
//
// With gradients, a chunk's logits of all pieces are kept until the rows' sums are known.  Then, piece by piece, they
// become the logits' gradients, rounded to the dtype of the products, which meet the weight's rows (for d_hidden, in
// f32 until the last piece) and the hidden rows (for dw, where it stands).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cpu/kernel_choice.h"
#include "caravan/ops/cpu/narrow_product.h"
#include "caravan/ops/cpu/plan_cache.h"
#include "caravan/ops/cpu/staging.h"
#include "caravan/ops/host_checks.h"

namespace caravan::ops::cpu {
namespace {

constexpr std::int64_t kChunk = 512;
constexpr std::int64_t kSmallestChunk = 16;
constexpr std::int64_t kPiece = 2048;  // vocabulary entries: kChunk * kPiece logits are 4 MiB
// A chunk's logits that are kept for the gradients take at most this, unless kFewestKept rows of them take more.
constexpr std::int64_t kKeptLogitBytes = std::int64_t{1} << 27;
constexpr std::int64_t kFewestKept = 128;
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

// Both ops.
struct Call {
  Tensor token_nll, hidden;
  const Weight& w;
  Tensor targets;
  Tensor d_hidden, dw;  // undefined: no gradients, or none of the weight
  float scale = 0;

  bool with_grad() const { return d_hidden.defined(); }
};

Call call_of(const LossHeadArgs& args) {
  return {args.token_nll, args.hidden, args.w, args.targets, {}, {}};
}

Call call_of(const LossHeadGradArgs& args) {
  return {args.token_nll, args.hidden, args.w, args.targets, args.d_hidden, args.dw, static_cast<float>(args.scale)};
}

// Where the workspace's parts begin, in bytes, for chunks of up to `chunk` rows.
struct LossPlan {
  DType dtype = DType::kF32;
  const WeightLayout* layout = nullptr;
  std::int64_t chunk = 0;
  std::int64_t hidden = 0, logits = 0, states = 0, targets = 0, rows = 0, scratch = 0, bytes = 0;
  std::int64_t gradient = 0, d_hidden = 0, weight = 0;  // with gradients only
};

std::int64_t pieces_of(std::int64_t vocab) {
  return (vocab + kPiece - 1) / kPiece;
}

std::int64_t columns_of(const LossPlan& plan, std::int64_t piece) {
  return std::min(kPiece, plan.layout->out - piece * kPiece);
}

Product& product_of(Context& ctx, const LossPlan& plan, std::int64_t chunk, std::int64_t piece) {
  const std::int64_t rows = columns_of(plan, piece);
  const ProductSpec spec{.tokens = chunk,
                         .x_dtype = plan.dtype,
                         .x_stride = plan.layout->in,
                         .y_dtype = DType::kF32,
                         .y_stride = rows,
                         .rows = rows};
  return plans_of(ctx).product(ctx.threads, spec, *plan.layout);
}

// d_hidden (+)= gradient W, of a piece: W's rows as they stand, or their f32 copies.
Product& hidden_product(Context& ctx, const LossPlan& plan, std::int64_t chunk, std::int64_t piece) {
  const std::int64_t columns = columns_of(plan, piece);
  const std::int64_t features = plan.layout->in;
  const ProductSpec spec{.tokens = chunk,
                         .x_dtype = plan.dtype,
                         .x_stride = columns,
                         .y_dtype = DType::kF32,
                         .y_stride = features,
                         .rows = features,
                         .residual = piece == 0 ? Residual::kNone : Residual::kInPlace};
  return plans_of(ctx).product(ctx.threads, spec,
                               plans_of(ctx).plain_layout(plan.dtype, columns, features, Direction::kInputGrad));
}

// Whether a kernel of ours makes dw: the decision is of the whole vocabulary, so that all pieces are made alike.
bool narrow_weight_product(const Context& ctx, const LossPlan& plan) {
  return plan.dtype == DType::kF32 && refuse_narrow(ctx, plan.layout->out, plan.layout->in) == nullptr;
}

// dw += gradient^T hidden, of a piece.
Product& weight_product(Context& ctx, const LossPlan& plan, std::int64_t chunk, std::int64_t piece) {
  const std::int64_t columns = columns_of(plan, piece);
  const std::int64_t features = plan.layout->in;
  const ProductSpec spec{.tokens = columns,
                         .x_dtype = plan.dtype,
                         .x_stride = columns,
                         .x_turned = true,
                         .y_dtype = DType::kF32,
                         .y_stride = features,
                         .rows = features,
                         .residual = Residual::kInPlace};
  return plans_of(ctx).product(ctx.threads, spec,
                               plans_of(ctx).plain_layout(plan.dtype, chunk, features, Direction::kInputGrad));
}

// Of one chunk size: oneDNN's scratch for the first piece, the second (which adds to the first) and the last, which are
// all there are.
std::int64_t scratch_bytes(Context& ctx, const LossPlan& plan, const Call& args, std::int64_t chunk) {
  const std::int64_t pieces = pieces_of(plan.layout->out);
  std::int64_t bytes = 0;
  for (const std::int64_t piece : {std::int64_t{0}, std::min<std::int64_t>(1, pieces - 1), pieces - 1}) {
    bytes = std::max(bytes, product_of(ctx, plan, chunk, piece).scratch_bytes());
    if (args.with_grad()) {
      bytes = std::max(bytes, hidden_product(ctx, plan, chunk, piece).scratch_bytes());
    }
    if (args.dw.defined()) {
      bytes = std::max(bytes, narrow_weight_product(ctx, plan)
                                  ? narrow_workspace(ctx, columns_of(plan, piece), plan.layout->in)
                                  : weight_product(ctx, plan, chunk, piece).scratch_bytes());
    }
  }
  return bytes;
}

LossPlan plan_of(Context& ctx, const Call& args) {
  const std::int64_t vocab = args.w.plain().rows();
  const std::int64_t features = args.hidden.columns();
  LossPlan plan;
  plan.dtype = product_dtype(ctx, args.hidden.dtype());
  plan.chunk = chunk_for(args.hidden.rows());
  while (args.with_grad() && plan.chunk > kFewestKept && plan.chunk * vocab * size_of(DType::kF32) > kKeptLogitBytes) {
    plan.chunk /= 2;
  }
  std::int64_t scratch = 0;
  with_onednn(ctx, "loss head", [&] {
    plan.layout = &plans_of(ctx).layout(plan.dtype, features, vocab);
    if (plan.layout->blocked && product_of(ctx, plan, plan.chunk, 0).slow()) {
      plan.layout = &plans_of(ctx).plain_layout(plan.dtype, features, vocab);
    }
    // The sizes below the chunk serve what is left over at the end.
    for (std::int64_t chunk = kSmallestChunk; chunk <= plan.chunk; chunk *= 2) {
      scratch = std::max(scratch, scratch_bytes(ctx, plan, args, chunk));
    }
  });
  const auto take = [&](std::int64_t bytes) {
    const std::int64_t here = plan.bytes;
    plan.bytes += aligned(bytes);
    return here;
  };
  plan.hidden = take(plan.chunk * features * size_of(plan.dtype));
  plan.logits = take(plan.chunk * (args.with_grad() ? vocab : std::min(kPiece, vocab)) * size_of(DType::kF32));
  plan.states = take(plan.chunk * static_cast<std::int64_t>(sizeof(LossRowState)));
  plan.targets = take(plan.chunk * size_of(DType::kI32));
  plan.rows = take(plan.chunk * size_of(DType::kI64));
  plan.scratch = take(scratch);
  if (args.with_grad()) {
    plan.gradient = take(plan.chunk * std::min(kPiece, vocab) * size_of(plan.dtype));
    plan.d_hidden = take(plan.chunk * features * size_of(DType::kF32));
    plan.weight =
        plan.dtype == args.w.plain().dtype() ? 0 : take(std::min(kPiece, vocab) * features * size_of(plan.dtype));
  }
  return plan;
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
  std::byte* gradient;
  std::byte* d_hidden;
  std::byte* weight;

  // Pieces stand one after the other where they are kept.
  float* logits_of(const Call& args, std::int64_t piece) const {
    return logits + (args.with_grad() ? piece * kPiece * chunk : 0);
  }
};

LossBlock block_of(const LossPlan& plan, const Call& args, const Chunk& chunk, std::int64_t piece) {
  return {.logits = chunk.logits_of(args, piece),
          .stride = columns_of(plan, piece),
          .columns = columns_of(plan, piece),
          .first = piece * kPiece,
          .targets = chunk.targets,
          .states = chunk.states};
}

void gather(Context& ctx, const LossPlan& plan, const Call& args, const Chunk& chunk) {
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

// The logits of one piece become gradients; those of the padding rows are 0.
void make_gradient(Context& ctx, const LossPlan& plan, const Call& args, const Chunk& chunk, std::int64_t piece) {
  const std::int64_t columns = columns_of(plan, piece);
  const LossGradBlock block{.block = block_of(plan, args, chunk, piece),
                            .element = element_of(plan.dtype),
                            .gradient = {chunk.gradient, columns},
                            .scale = args.scale};
  parallel_for(ctx.threads, chunk.count, grain_of(columns),
               [&](std::int64_t begin, std::int64_t end) { kernels_for(ctx.isa).loss_grad_block(block, begin, end); });
  const std::int64_t row_bytes = columns * size_of(plan.dtype);
  std::memset(chunk.gradient + chunk.count * row_bytes, 0,
              static_cast<std::size_t>((chunk.chunk - chunk.count) * row_bytes));
}

void write_d_hidden(Context& ctx, const Call& args, const Chunk& chunk) {
  const std::int64_t features = args.hidden.columns();
  const std::int64_t size = size_of(args.d_hidden.dtype());
  const Element element = element_of(args.d_hidden.dtype());
  parallel_for(ctx.threads, chunk.count, grain_of(features), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::byte* to = args.d_hidden.address() + chunk.rows[i] * args.d_hidden.row_stride() * size;
      std::byte* from = chunk.d_hidden + i * features * size_of(DType::kF32);
      kernels_for(ctx.isa).convert({element, Element::kF32, {to, features}, {from, features}, features}, 0, 1);
    }
  });
}

void run_gradients(Context& ctx, const LossPlan& plan, const Call& args, const Chunk& chunk) {
  const std::int64_t features = args.hidden.columns();
  const Tensor& w = args.w.plain();
  const bool narrow = args.dw.defined() && narrow_weight_product(ctx, plan);
  for (std::int64_t piece = 0; piece < pieces_of(plan.layout->out); ++piece) {
    const std::int64_t first = piece * kPiece;
    const std::int64_t columns = columns_of(plan, piece);
    make_gradient(ctx, plan, args, chunk, piece);
    const Tensor rows = w.row_range(first, first + columns);
    const bool widened = w.dtype() != plan.dtype;
    if (widened) {
      stage_rows(ctx, plan.dtype, rows, chunk.weight);
    }
    with_onednn(ctx, "loss head", [&] {
      hidden_product(ctx, plan, chunk.chunk, piece)
          .run(plans_of(ctx).stream(), {.y = chunk.d_hidden,
                                        .x = chunk.gradient,
                                        .weight = widened ? chunk.weight : rows.address(),
                                        .scratch = chunk.scratch});
      if (args.dw.defined() && !narrow) {
        weight_product(ctx, plan, chunk.chunk, piece)
            .run(plans_of(ctx).stream(), {.y = args.dw.address() + first * features * size_of(DType::kF32),
                                          .x = chunk.gradient,
                                          .weight = chunk.hidden,
                                          .scratch = chunk.scratch});
      }
    });
    if (narrow) {
      run_narrow(ctx,
                 {.dy = reinterpret_cast<const float*>(chunk.gradient),
                  .dy_stride = columns,
                  .x = reinterpret_cast<const float*>(chunk.hidden),
                  .x_stride = features,
                  .dw = reinterpret_cast<float*>(args.dw.address()) + first * features,
                  .dw_stride = features,
                  .tokens = chunk.count,
                  .out = columns,
                  .in = features,
                  .add = true},
                 chunk.scratch);
    }
  }
  write_d_hidden(ctx, args, chunk);
}

void run_chunk(Context& ctx, const LossPlan& plan, const Call& args, const Chunk& chunk, const std::byte* weight) {
  gather(ctx, plan, args, chunk);
  for (std::int64_t piece = 0; piece < pieces_of(plan.layout->out); ++piece) {
    const LossBlock block = block_of(plan, args, chunk, piece);
    with_onednn(ctx, "loss head", [&] {
      product_of(ctx, plan, chunk.chunk, piece)
          .run(plans_of(ctx).stream(), {.y = reinterpret_cast<std::byte*>(chunk.logits_of(args, piece)),
                                        .x = chunk.hidden,
                                        .weight = weight + weight_rows_offset(*plan.layout, block.first),
                                        .scratch = chunk.scratch});
    });
    parallel_for(ctx.threads, chunk.count, grain_of(block.columns),
                 [&](std::int64_t begin, std::int64_t end) { kernels_for(ctx.isa).loss_block(block, begin, end); });
  }
  auto* nll = reinterpret_cast<float*>(args.token_nll.address());
  for (std::int64_t i = 0; i < chunk.count; ++i) {
    const LossRowState& state = chunk.states[i];
    const double logarithm = std::log(static_cast<double>(state.sum));
    nll[chunk.rows[i]] =
        static_cast<float>(logarithm + (static_cast<double>(state.maximum) - static_cast<double>(state.target)));
  }
  if (args.with_grad()) {
    run_gradients(ctx, plan, args, chunk);
  }
}

void run_call(Context& ctx, const Call& args, std::byte* workspace) {
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
              .scratch = workspace + plan.scratch,
              .gradient = workspace + plan.gradient,
              .d_hidden = workspace + plan.d_hidden,
              .weight = workspace + plan.weight};
  const std::int64_t tokens = args.hidden.rows();
  for (std::int64_t row = 0; row < tokens; ++row) {
    if (targets[row] == kIgnoredTarget) {
      nll[row] = 0.0F;
      if (args.with_grad()) {
        const std::int64_t size = size_of(args.d_hidden.dtype());
        std::memset(args.d_hidden.address() + row * args.d_hidden.row_stride() * size, 0,
                    static_cast<std::size_t>(args.d_hidden.columns() * size));
      }
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

template <typename Args>
void prepare(Context& ctx, const Args& args) {
  prepare_weight(ctx, args.w, *plan_of(ctx, call_of(args)).layout);
}

template <typename Args>
std::int64_t workspace(Context& ctx, const Args& args) {
  return plan_of(ctx, call_of(args)).bytes;
}

template <typename Args>
void run(Context& ctx, const Args& args, std::byte* workspace) {
  run_call(ctx, call_of(args), workspace);
}

template <typename Args>
const char* refuse_native(const Context& ctx, const Args& args) {
  return refuse_native_dtype(ctx, args.hidden.dtype());
}

template <typename Args>
const char* refuse_widened(const Context&, const Args& args) {
  return refuse_widened_dtype(args.hidden.dtype());
}

template <typename Args>
ImplementationList<Args> list_of() {
  static const std::array<Implementation<Args>, 2> kList = {
      {{"onednn", Backend::kCpu, Isa::kAvx2, refuse_native<Args>, workspace<Args>, run<Args>, prepare<Args>},
       {"onednn-upcast", Backend::kCpu, Isa::kAvx2, refuse_widened<Args>, workspace<Args>, run<Args>, prepare<Args>}}};
  return kList;
}

}  // namespace

ImplementationList<LossHeadArgs> loss_head_list() {
  return list_of<LossHeadArgs>();
}

ImplementationList<LossHeadGradArgs> loss_head_grad_list() {
  return list_of<LossHeadGradArgs>();
}

}  // namespace caravan::ops::cpu

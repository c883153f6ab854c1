// Few rows of activations, as in decoding: codes are multiplied as they are, by activations rounded to whole numbers; the
// weight is read once, where it lies.  Many rows: a tile of the weight becomes numbers that stay in the cache until
// oneDNN has multiplied all activations by it.
#include "caravan/ops/cpu/block_linear.h"

#include <algorithm>
#include <array>
#include <optional>

#include "caravan/base/threads.h"
#include "caravan/ops/cpu/kernel_choice.h"
#include "caravan/ops/cpu/plan_cache.h"
#include "caravan/ops/cpu/staging.h"
#include "caravan/quant/dequantize.h"

namespace caravan::ops::cpu {
namespace {

// Rows of activations up to which the codes themselves are multiplied: about where both ways take the same time.
constexpr std::int64_t kFewRows = 24;
// Bytes of a tile of numbers: what a core's second-level cache holds beside the activations.
constexpr std::int64_t kTileBytes = std::int64_t{1} << 19;
// Elements of a row that are dequantised at a time where a type has no kernel: a multiple of every block.
constexpr std::int64_t kStretch = 256;
constexpr std::int64_t kGroup = 32;  // of activations under one scale

std::optional<BlockCodes> codes_of(quant::BlockType type) {
  switch (type) {
    case quant::BlockType::kQ40:
      return BlockCodes::kQ40;
    case quant::BlockType::kQ41:
      return BlockCodes::kQ41;
    case quant::BlockType::kQ80:
      return BlockCodes::kQ80;
    case quant::BlockType::kQ4K:
      return BlockCodes::kQ4K;
    case quant::BlockType::kQ6K:
      return BlockCodes::kQ6K;
    default:
      return std::nullopt;
  }
}

// The element type of rows of numbers that kernels can read where they lie.
std::optional<Element> element_in_place(const quant::BlockMatrix& piece) {
  const std::optional<DType> dtype = quant::plain_dtype(piece.type);
  if (!dtype || !has_kernels(*dtype) ||
      reinterpret_cast<std::uintptr_t>(piece.bytes.data()) % static_cast<std::uintptr_t>(size_of(*dtype)) != 0) {
    return std::nullopt;
  }
  return element_of(*dtype);
}

// Kernels read through pointers to void; nothing writes to these rows.
Rows rows_in_place(const quant::BlockMatrix& piece) {
  return {const_cast<std::byte*>(piece.bytes.data()), piece.columns};
}

struct Part {
  const quant::BlockMatrix* piece;
  std::int64_t first;       // the piece's first row in the weight
  std::int64_t begin, end;  // rows of the piece
};

// body(part) for what rows [begin, end) of the weight are made of.
template <typename Body>
void each_part(const Weight& weight, std::int64_t begin, std::int64_t end, const Body& body) {
  std::int64_t first = 0;
  for (const quant::BlockMatrix& piece : weight.blocks()) {
    const std::int64_t low = std::max(begin, first);
    const std::int64_t high = std::min(end, first + piece.rows);
    if (low < high) {
      body(Part{&piece, first, low - first, high - first});
    }
    first += piece.rows;
  }
}

template <typename Condition>
bool any_piece(const Weight& weight, const Condition& holds) {
  return std::ranges::any_of(weight.blocks(), holds);
}

bool has_codes(const quant::BlockMatrix& piece) {
  return codes_of(piece.type).has_value();
}

// The parts of a workspace, one after the other.
struct Space {
  std::int64_t bytes = 0;

  std::int64_t take(std::int64_t wanted) {
    const std::int64_t here = bytes;
    bytes += aligned(wanted);
    return here;
  }
};

// y = round(product + bias + residual) of columns [begin, end), whose product stands at `product`.
void finish_columns(const Context& ctx, const LinearArgs& args, float* product, std::int64_t stride, std::int64_t begin,
                    std::int64_t end) {
  const auto at = [&](const Tensor& tensor) {
    return tensor.defined() ? tensor.address() + begin * size_of(tensor.dtype()) : nullptr;
  };
  kernels_for(ctx.isa).epilogue({.element = element_of(args.y.dtype()),
                                 .bias_element = element_of(args.x.dtype()),
                                 .y = {at(args.y), args.y.row_stride()},
                                 .product = {product, stride},
                                 .bias = at(args.bias),
                                 .residual = {at(args.residual), args.residual.row_stride()},
                                 .columns = end - begin},
                                0, args.y.rows());
}

// --- few rows

struct FewPlan {
  bool coded = false;    // codes of the activations are wanted
  bool widened = false;  // an f32 copy of them
  bool direct = false;   // the product is y
  std::int64_t codes = 0, scales = 0, sums = 0, x = 0, product = 0, bytes = 0;
};

FewPlan few_plan(const LinearArgs& args) {
  const std::int64_t tokens = args.x.rows();
  const std::int64_t in = args.x.columns();
  const std::int64_t floats = size_of(DType::kF32);
  FewPlan plan;
  plan.coded = any_piece(args.w, has_codes);
  plan.widened = args.x.dtype() != DType::kF32 && !std::ranges::all_of(args.w.blocks(), has_codes);
  plan.direct = args.y.dtype() == DType::kF32 && !args.bias.defined() && !args.residual.defined();
  Space space;
  if (plan.coded) {
    plan.codes = space.take(tokens * in);
    plan.scales = space.take(tokens * in / kGroup * floats);
    plan.sums = space.take(tokens * in / kGroup * floats);
  }
  plan.x = plan.widened ? space.take(tokens * in * floats) : 0;
  plan.product = plan.direct ? 0 : space.take(tokens * args.y.columns() * floats);
  plan.bytes = space.bytes;
  return plan;
}

// What every thread of such a call reads, and where its product goes.
struct FewCall {
  const Kernels& kernels;
  CodedRows coded;
  const float* x;
  std::int64_t x_stride;
  std::int64_t tokens;
  float* y;
  std::int64_t y_stride;
};

// Types without kernels of their own, a stretch of a row at a time.
void multiply_dequantized(const FewCall& call, const Part& part) {
  const quant::BlockMatrix& piece = *part.piece;
  const quant::TypeFacts& type = quant::facts(piece.type);
  std::array<float, kStretch> numbers;
  for (std::int64_t row = part.begin; row < part.end; ++row) {
    const std::byte* blocks = piece.row_range(row, row + 1).data();
    for (std::int64_t i = 0; i < piece.columns; i += kStretch) {
      const std::int64_t count = std::min(kStretch, piece.columns - i);
      quant::dequantize(piece.type, blocks + i / type.elements * type.bytes, numbers.data(), count);
      call.kernels.number_product({.element = Element::kF32,
                                   .w = {numbers.data(), kStretch},
                                   .x = call.x + i,
                                   .x_stride = call.x_stride,
                                   .tokens = call.tokens,
                                   .columns = count,
                                   .y = call.y + part.first + row,
                                   .y_stride = call.y_stride,
                                   .add = i > 0},
                                  0, 1);
    }
  }
}

void multiply(const FewCall& call, const Part& part) {
  const quant::BlockMatrix& piece = *part.piece;
  if (const std::optional<BlockCodes> codes = codes_of(piece.type)) {
    call.kernels.block_product({.type = *codes,
                                .blocks = piece.bytes.data(),
                                .row_bytes = piece.row_bytes,
                                .x = call.coded,
                                .tokens = call.tokens,
                                .y = call.y + part.first,
                                .y_stride = call.y_stride},
                               part.begin, part.end);
  } else if (const std::optional<Element> element = element_in_place(piece)) {
    call.kernels.number_product({.element = *element,
                                 .w = rows_in_place(piece),
                                 .x = call.x,
                                 .x_stride = call.x_stride,
                                 .tokens = call.tokens,
                                 .columns = piece.columns,
                                 .y = call.y + part.first,
                                 .y_stride = call.y_stride,
                                 .add = false},
                                part.begin, part.end);
  } else {
    multiply_dequantized(call, part);
  }
}

void run_few(Context& ctx, const LinearArgs& args, std::byte* workspace) {
  const FewPlan plan = few_plan(args);
  const std::int64_t in = args.x.columns();
  FewCall call{
      .kernels = kernels_for(ctx.isa),
      .coded = {reinterpret_cast<std::int8_t*>(workspace + plan.codes),
                reinterpret_cast<float*>(workspace + plan.scales), reinterpret_cast<float*>(workspace + plan.sums), in},
      .x = reinterpret_cast<const float*>(args.x.address()),
      .x_stride = args.x.row_stride(),
      .tokens = args.x.rows(),
      .y = reinterpret_cast<float*>(workspace + plan.product),
      .y_stride = args.y.columns()};
  if (plan.coded) {
    call.kernels.code_rows({element_of(args.x.dtype()), rows_of(args.x), call.coded}, 0, args.x.rows());
  }
  if (plan.widened) {
    stage_rows(ctx, DType::kF32, args.x, workspace + plan.x);
    call.x = reinterpret_cast<const float*>(workspace + plan.x);
    call.x_stride = in;
  }
  if (plan.direct) {
    call.y = reinterpret_cast<float*>(args.y.address());
    call.y_stride = args.y.row_stride();
  }
  parallel_for(ctx.threads, args.y.columns(), grain_of(in), [&](std::int64_t begin, std::int64_t end) {
    each_part(args.w, begin, end, [&](const Part& part) { multiply(call, part); });
    if (!plan.direct) {
      finish_columns(ctx, args, call.y + begin, call.y_stride, begin, end);
    }
  });
}

// --- many rows

struct ManyPlan {
  DType dtype = DType::kF32;  // of the tiles and the activations that meet them
  bool stage_x = false;
  bool direct = false;  // oneDNN writes y, adding the residual
  std::int64_t tile_rows = 0;
  std::int64_t x = 0, tile = 0, product = 0, scratch = 0, bytes = 0;
};

// bf16 where the processor multiplies it, unless a piece's own numbers have more bits.
DType tile_dtype(const Context& ctx, const Weight& weight) {
  const bool finer = any_piece(weight, [](const quant::BlockMatrix& piece) {
    const std::optional<DType> dtype = quant::plain_dtype(piece.type);
    return dtype && *dtype != DType::kBF16;
  });
  return finer ? DType::kF32 : product_dtype(ctx, DType::kBF16);
}

// As equal as whole blocks of rows allow.
std::int64_t rows_of_tile(std::int64_t out, std::int64_t in, DType dtype) {
  const std::int64_t most = std::max<std::int64_t>(kWeightBlock, kTileBytes / (in * size_of(dtype)));
  const std::int64_t tiles = (out + most - 1) / most;
  const std::int64_t rows = (out + tiles - 1) / tiles;
  return std::min(out, (rows + kWeightBlock - 1) / kWeightBlock * kWeightBlock);
}

Product& product_of(Context& ctx, const ManyPlan& plan, const LinearArgs& args, std::int64_t rows) {
  const std::int64_t in = args.x.columns();
  ProductSpec spec{.tokens = args.x.rows(),
                   .x_dtype = plan.dtype,
                   .x_stride = plan.stage_x ? in : args.x.row_stride(),
                   .y_dtype = plan.direct ? args.y.dtype() : DType::kF32,
                   .y_stride = plan.direct ? args.y.row_stride() : rows,
                   .rows = rows};
  if (plan.direct && args.residual.defined()) {
    spec.residual = args.residual.address() == args.y.address() ? Residual::kInPlace : Residual::kBeside;
  }
  return plans_of(ctx).product(ctx.threads, spec, plans_of(ctx).plain_layout(plan.dtype, in, rows));
}

ManyPlan many_plan(Context& ctx, const LinearArgs& args) {
  const std::int64_t tokens = args.x.rows();
  const std::int64_t in = args.x.columns();
  const std::int64_t out = args.y.columns();
  ManyPlan plan;
  plan.dtype = tile_dtype(ctx, args.w);
  plan.stage_x = plan.dtype != args.x.dtype() || !args.x.contiguous();
  plan.direct = args.y.dtype() == DType::kF32 && !args.bias.defined() &&
                (!args.residual.defined() || args.residual.row_stride() == args.y.row_stride());
  plan.tile_rows = rows_of_tile(out, in, plan.dtype);
  std::int64_t scratch = 0;
  with_onednn(ctx, "linear", [&] {
    scratch = product_of(ctx, plan, args, plan.tile_rows).scratch_bytes();
    if (const std::int64_t left = out % plan.tile_rows; left > 0) {
      scratch = std::max(scratch, product_of(ctx, plan, args, left).scratch_bytes());
    }
  });
  Space space;
  plan.x = plan.stage_x ? space.take(tokens * in * size_of(plan.dtype)) : 0;
  plan.tile = space.take(plan.tile_rows * in * size_of(plan.dtype));
  plan.product = plan.direct ? 0 : space.take(tokens * plan.tile_rows * size_of(DType::kF32));
  plan.scratch = space.take(scratch);
  plan.bytes = space.bytes;
  return plan;
}

// Types without kernels of their own, a stretch of a row at a time.
void unpack_dequantized(const Kernels& kernels, const Part& part, Element element, std::byte* to, std::int64_t size) {
  const quant::BlockMatrix& piece = *part.piece;
  const quant::TypeFacts& type = quant::facts(piece.type);
  std::array<float, kStretch> numbers;
  for (std::int64_t row = part.begin; row < part.end; ++row) {
    const std::byte* blocks = piece.row_range(row, row + 1).data();
    for (std::int64_t i = 0; i < piece.columns; i += kStretch) {
      const std::int64_t count = std::min(kStretch, piece.columns - i);
      quant::dequantize(piece.type, blocks + i / type.elements * type.bytes, numbers.data(), count);
      std::byte* const here = to + ((row - part.begin) * piece.columns + i) * size;
      kernels.convert({element, Element::kF32, {here, count}, {numbers.data(), count}, count}, 0, 1);
    }
  }
}

// Rows [first, last) of the weight as numbers of `dtype`, one after the other.
void unpack(const Context& ctx, const Weight& weight, DType dtype, std::int64_t first, std::int64_t last,
            std::byte* tile) {
  const Kernels& kernels = kernels_for(ctx.isa);
  const Element element = element_of(dtype);
  const std::int64_t columns = weight.shape()[1];
  const std::int64_t size = size_of(dtype);
  parallel_for(ctx.threads, last - first, grain_of(columns), [&](std::int64_t begin, std::int64_t end) {
    each_part(weight, first + begin, first + end, [&](const Part& part) {
      const quant::BlockMatrix& piece = *part.piece;
      std::byte* const to = tile + (part.first + part.begin - first) * columns * size;
      const std::byte* const from = piece.row_range(part.begin, part.end).data();
      const std::int64_t rows = part.end - part.begin;
      if (const std::optional<BlockCodes> codes = codes_of(piece.type)) {
        kernels.unpack_blocks({*codes, from, piece.row_bytes, columns, element, {to, columns}}, 0, rows);
      } else if (const std::optional<Element> stored = element_in_place(piece)) {
        Rows source = rows_in_place(piece);
        source.data = const_cast<std::byte*>(from);
        kernels.convert({element, *stored, {to, columns}, source, columns}, 0, rows);
      } else {
        unpack_dequantized(kernels, part, element, to, size);
      }
    });
  });
}

void run_many(Context& ctx, const LinearArgs& args, std::byte* workspace) {
  const ManyPlan plan = many_plan(ctx, args);
  const std::int64_t out = args.y.columns();
  std::byte* x = args.x.address();
  if (plan.stage_x) {
    x = workspace + plan.x;
    stage_rows(ctx, plan.dtype, args.x, x);
  }
  const auto column = [&](const Tensor& tensor, std::int64_t first) {
    return tensor.defined() ? tensor.address() + first * size_of(tensor.dtype()) : nullptr;
  };
  for (std::int64_t first = 0; first < out; first += plan.tile_rows) {
    const std::int64_t last = std::min(out, first + plan.tile_rows);
    unpack(ctx, args.w, plan.dtype, first, last, workspace + plan.tile);
    with_onednn(ctx, "linear", [&] {
      product_of(ctx, plan, args, last - first)
          .run(plans_of(ctx).stream(), {.y = plan.direct ? column(args.y, first) : workspace + plan.product,
                                        .x = x,
                                        .weight = workspace + plan.tile,
                                        .residual = plan.direct ? column(args.residual, first) : nullptr,
                                        .scratch = workspace + plan.scratch});
    });
    if (!plan.direct) {
      finish_columns(ctx, args, reinterpret_cast<float*>(workspace + plan.product), last - first, first, last);
    }
  }
}

}  // namespace

std::pair<const quant::BlockMatrix*, std::int64_t> piece_of_row(const Weight& weight, std::int64_t row) {
  std::pair<const quant::BlockMatrix*, std::int64_t> found{nullptr, 0};
  each_part(weight, row, row + 1, [&](const Part& part) { found = {part.piece, part.first}; });
  return found;
}

const char* refuse_blocks(const Context&, const LinearArgs& args) {
  if (!args.w.is_in_blocks()) {
    return "the weight is numbers";
  }
  return has_kernels(args.x.dtype()) ? nullptr : kNoF64;
}

std::int64_t block_linear_workspace(Context& ctx, const LinearArgs& args) {
  return args.x.rows() <= kFewRows ? few_plan(args).bytes : many_plan(ctx, args).bytes;
}

void run_block_linear(Context& ctx, const LinearArgs& args, std::byte* workspace) {
  if (args.x.rows() <= kFewRows) {
    run_few(ctx, args, workspace);
  } else {
    run_many(ctx, args, workspace);
  }
}

}  // namespace caravan::ops::cpu

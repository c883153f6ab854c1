// The ops whose rows are independent: norm, rotation, gated activation, embedding.
#include <cstring>
#include <vector>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cpu/block_linear.h"
#include "caravan/ops/cpu/kernel_choice.h"
#include "caravan/ops/host_checks.h"
#include "caravan/quant/dequantize.h"

namespace caravan::ops::cpu {
namespace {

// kernel(args, begin, end) over all rows on the context's threads.
template <typename Args>
void run_rows(const Context& ctx, void (*kernel)(const Args&, std::int64_t, std::int64_t), const Args& args,
              std::int64_t rows, std::int64_t columns) {
  parallel_for(ctx.threads, rows, grain_of(columns),
               [&](std::int64_t begin, std::int64_t end) { kernel(args, begin, end); });
}

template <typename T>
T* data_of(const Tensor& tensor) {
  return tensor.defined() ? reinterpret_cast<T*>(tensor.address()) : nullptr;
}

void run_rms_norm(Context& ctx, const RmsNormArgs& args, std::byte*) {
  const RmsNormRows rows{.element = element_of(args.x.dtype()),
                         .y = rows_of(args.y),
                         .x = rows_of(args.x),
                         .rstd = data_of<float>(args.rstd),
                         .w = args.w.address(),
                         .features = args.x.columns(),
                         .eps = static_cast<float>(args.eps),
                         .round_before_weight = args.rounding == NormRounding::kHuggingFace};
  run_rows(ctx, kernels_for(ctx.isa).rms_norm, rows, args.x.rows(), args.x.columns());
}

void run_swiglu(Context& ctx, const SwigluArgs& args, std::byte*) {
  const SwigluRows rows{.element = element_of(args.y.dtype()),
                        .y = rows_of(args.y),
                        .gate_up = rows_of(args.gate_up),
                        .features = args.y.columns()};
  run_rows(ctx, kernels_for(ctx.isa).swiglu, rows, args.y.rows(), args.y.columns());
}

void run_rope(Context& ctx, const RopeArgs& args, std::byte*) {
  const std::int64_t half = args.cos.columns();
  const RopeRows rows{.element = element_of(args.x.dtype()),
                      .y = rows_of(args.y),
                      .x = rows_of(args.x),
                      .cos = data_of<float>(args.cos),
                      .sin = data_of<float>(args.sin),
                      .heads = args.x.columns() / (2 * half),
                      .half = half,
                      .interleaved = args.pairing == RopePairing::kInterleaved,
                      .inverse = args.inverse};
  run_rows(ctx, kernels_for(ctx.isa).rope, rows, args.x.rows(), args.x.columns());
}

void run_rope_tables(Context& ctx, const RopeTablesArgs& args, std::byte*) {
  check_kinds(args.kind, args.positions, args.frequencies.rows());
  // f64 leaves the values as f32 does.
  const DType rounded_to = args.rounded_to == DType::kF64 ? DType::kF32 : args.rounded_to;
  const RopeTableRows rows{.cos = data_of<float>(args.cos),
                           .sin = data_of<float>(args.sin),
                           .positions = data_of<std::int32_t>(args.positions),
                           .kind = data_of<std::int32_t>(args.kind),
                           .frequencies = data_of<float>(args.frequencies),
                           .half = args.cos.columns(),
                           .attention_scaling = static_cast<float>(args.attention_scaling),
                           .rounded_to = element_of(rounded_to)};
  run_rows(ctx, kernels_for(ctx.isa).rope_tables, rows, args.cos.rows(), args.cos.columns());
}

void run_embedding(Context& ctx, const EmbeddingArgs& args, std::byte*) {
  check_ids(args.ids, args.table.shape()[0]);
  const Tensor& table = args.table.plain();
  const auto* ids = data_of<std::int32_t>(args.ids);
  const std::int64_t size = size_of(args.y.dtype());
  const auto bytes = static_cast<std::size_t>(args.y.columns() * size);
  parallel_for(ctx.threads, args.y.rows(), grain_of(args.y.columns()), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::byte* to = args.y.address() + row * args.y.row_stride() * size;
      if (ids[row] < 0) {
        std::memset(to, 0, bytes);
      } else {
        std::memcpy(to, table.address() + ids[row] * table.row_stride() * size, bytes);
      }
    }
  });
}

// Rows that are asked for, dequantised.
void run_embedding_blocks(Context& ctx, const EmbeddingArgs& args, std::byte*) {
  check_ids(args.ids, args.table.shape()[0]);
  const auto* ids = data_of<std::int32_t>(args.ids);
  const std::int64_t columns = args.y.columns();
  const std::int64_t size = size_of(args.y.dtype());
  parallel_for(ctx.threads, args.y.rows(), grain_of(columns), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> values(static_cast<std::size_t>(columns));
    for (std::int64_t row = begin; row < end; ++row) {
      std::byte* to = args.y.address() + row * args.y.row_stride() * size;
      if (ids[row] < 0) {
        std::memset(to, 0, static_cast<std::size_t>(columns * size));
        continue;
      }
      const auto [piece, first] = piece_of_row(args.table, ids[row]);
      quant::dequantize_rows(*piece, ids[row] - first, ids[row] - first + 1, values.data(), 1);
      kernels_for(ctx.isa).convert(
          {element_of(args.y.dtype()), Element::kF32, {to, columns}, {values.data(), columns}, columns}, 0, 1);
    }
  });
}

const char* refuse_rms_norm(const Context&, const RmsNormArgs& args) {
  return has_kernels(args.x.dtype()) ? nullptr : kNoF64;
}
const char* refuse_swiglu(const Context&, const SwigluArgs& args) {
  return has_kernels(args.y.dtype()) ? nullptr : kNoF64;
}
const char* refuse_rope(const Context&, const RopeArgs& args) {
  return has_kernels(args.x.dtype()) ? nullptr : kNoF64;
}
const char* refuse_rope_tables(const Context&, const RopeTablesArgs& args) {
  return args.cos.dtype() == DType::kF32 ? nullptr : kNoF64;
}
const char* refuse_embedding(const Context&, const EmbeddingArgs& args) {
  if (args.table.is_in_blocks()) {
    return "the table stands in blocks";
  }
  return has_kernels(args.y.dtype()) ? nullptr : kNoF64;
}
const char* refuse_embedding_blocks(const Context&, const EmbeddingArgs& args) {
  if (!args.table.is_in_blocks()) {
    return "the table is numbers";
  }
  return has_kernels(args.y.dtype()) ? nullptr : kNoF64;
}

}  // namespace

ImplementationList<RmsNormArgs> rms_norm_list() {
  static const auto kList = simd_list<RmsNormArgs>(refuse_rms_norm, nullptr, run_rms_norm);
  return kList;
}

ImplementationList<SwigluArgs> swiglu_list() {
  static const auto kList = simd_list<SwigluArgs>(refuse_swiglu, nullptr, run_swiglu);
  return kList;
}

ImplementationList<RopeArgs> rope_list() {
  static const auto kList = simd_list<RopeArgs>(refuse_rope, nullptr, run_rope);
  return kList;
}

ImplementationList<RopeTablesArgs> rope_tables_list() {
  static const auto kList = simd_list<RopeTablesArgs>(refuse_rope_tables, nullptr, run_rope_tables);
  return kList;
}

// Rows are copied, which needs no kernel of a level.
ImplementationList<EmbeddingArgs> embedding_list() {
  static const std::array<Implementation<EmbeddingArgs>, 2> kList = {
      {{"rows", Backend::kCpu, Isa::kAvx2, refuse_embedding, nullptr, run_embedding},
       {"blocks", Backend::kCpu, Isa::kAvx2, refuse_embedding_blocks, nullptr, run_embedding_blocks}}};
  return kList;
}

}  // namespace caravan::ops::cpu

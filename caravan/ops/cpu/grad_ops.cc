// The backward of the row ops, sums over rows, and sums, copies and conversions of whole tensors.
#include <cstring>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cpu/kernel_choice.h"
#include "caravan/ops/host_checks.h"

namespace caravan::ops::cpu {
namespace {

// Columns that a thread takes at a time where it owns columns: whole cache lines of every dtype.
constexpr std::int64_t kColumns = 64;

// Fewest columns a thread takes, so that starting it costs less than its work: about 16384 elements.
std::int64_t column_grain(std::int64_t rows) {
  return (std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, rows)) + kColumns - 1) / kColumns * kColumns;
}

// kernel(args, begin, end) over all rows, or all columns, on the context's threads.
template <typename Args>
void run_parallel(const Context& ctx, void (*kernel)(const Args&, std::int64_t, std::int64_t), const Args& args,
                  std::int64_t count, std::int64_t grain) {
  parallel_for(ctx.threads, count, grain, [&](std::int64_t begin, std::int64_t end) { kernel(args, begin, end); });
}

template <typename T>
T* data_of(const Tensor& tensor) {
  return reinterpret_cast<T*>(tensor.address());
}

void run_bias_grad(Context& ctx, const BiasGradArgs& args, std::byte*) {
  const ColumnSums sums{.element = element_of(args.dy.dtype()),
                        .dy = rows_of(args.dy),
                        .rows = args.dy.rows(),
                        .sums = data_of<float>(args.db),
                        .add = args.accumulate == Accumulate::kAdd};
  run_parallel(ctx, kernels_for(ctx.isa).column_sums, sums, args.dy.columns(), column_grain(args.dy.rows()));
}

void run_rms_norm_weight_grad(Context& ctx, const RmsNormWeightGradArgs& args, std::byte*) {
  const RmsNormColumnSums sums{.sums = {.element = element_of(args.x.dtype()),
                                        .dy = rows_of(args.dy),
                                        .rows = args.x.rows(),
                                        .sums = data_of<float>(args.dw),
                                        .add = args.accumulate == Accumulate::kAdd},
                               .x = rows_of(args.x),
                               .rstd = data_of<float>(args.rstd),
                               .round_before_weight = args.rounding == NormRounding::kHuggingFace};
  run_parallel(ctx, kernels_for(ctx.isa).rms_norm_column_sums, sums, args.x.columns(), column_grain(args.x.rows()));
}

void run_rms_norm_input_grad(Context& ctx, const RmsNormInputGradArgs& args, std::byte*) {
  const RmsNormGradRows rows{.element = element_of(args.x.dtype()),
                             .dx = rows_of(args.dx),
                             .dy = rows_of(args.dy),
                             .x = rows_of(args.x),
                             .rstd = data_of<float>(args.rstd),
                             .w = args.w.address(),
                             .features = args.x.columns(),
                             .add = args.accumulate == Accumulate::kAdd};
  run_parallel(ctx, kernels_for(ctx.isa).rms_norm_grad, rows, args.x.rows(), grain_of(args.x.columns()));
}

void run_swiglu_grad(Context& ctx, const SwigluGradArgs& args, std::byte*) {
  const SwigluGradRows rows{.element = element_of(args.dy.dtype()),
                            .d_gate_up = rows_of(args.d_gate_up),
                            .dy = rows_of(args.dy),
                            .gate_up = rows_of(args.gate_up),
                            .features = args.dy.columns()};
  run_parallel(ctx, kernels_for(ctx.isa).swiglu_grad, rows, args.dy.rows(), grain_of(args.dy.columns()));
}

// A thread owns columns of the table and walks all rows, so that a row of the table is added to in the rows' order.
void run_embedding_weight_grad(Context& ctx, const EmbeddingWeightGradArgs& args, std::byte*) {
  check_ids(args.ids, args.d_table.rows());
  const EmbeddingGradColumns columns{.element = element_of(args.dy.dtype()),
                                     .table = rows_of(args.d_table),
                                     .dy = rows_of(args.dy),
                                     .ids = data_of<std::int32_t>(args.ids),
                                     .rows = args.dy.rows(),
                                     .skipped_id = args.skipped_id};
  run_parallel(ctx, kernels_for(ctx.isa).embedding_grad, columns, args.dy.columns(), column_grain(args.dy.rows()));
}

// Rows that touch are one long row: threads then share it however few rows there are.
struct Extent {
  std::int64_t rows, columns;
};
constexpr std::int64_t kLongRow = 4096;

template <typename... Tensors>
bool all_contiguous(const Tensors&... tensors) {
  return (tensors.contiguous() && ...);
}

// Calls body(extent, first element, flat) for all of y: once for its rows; or, where everything is contiguous, for rows
// of kLongRow (flat) and for the elements that are left over.
template <typename Body>
void each_extent(const Tensor& y, bool contiguous, const Body& body) {
  if (!contiguous) {
    body(Extent{y.rows(), y.columns()}, std::int64_t{0}, false);
    return;
  }
  const std::int64_t whole = y.elements() / kLongRow;
  const std::int64_t rest = y.elements() % kLongRow;
  if (whole > 0) {
    body(Extent{whole, kLongRow}, std::int64_t{0}, true);
  }
  if (rest > 0) {
    body(Extent{1, rest}, whole * kLongRow, true);
  }
}

// A tensor's rows from element `first` on; as rows of kLongRow where it is `flat`.
Rows rows_from(const Tensor& tensor, std::int64_t first, bool flat) {
  return {tensor.address() + first * size_of(tensor.dtype()), flat ? kLongRow : tensor.row_stride()};
}

void run_add(Context& ctx, const AddArgs& args, std::byte*) {
  each_extent(args.y, all_contiguous(args.y, args.a, args.b), [&](Extent extent, std::int64_t first, bool flat) {
    const AddRows rows{.element = element_of(args.y.dtype()),
                       .y = rows_from(args.y, first, flat),
                       .a = rows_from(args.a, first, flat),
                       .b = rows_from(args.b, first, flat),
                       .columns = extent.columns};
    run_parallel(ctx, kernels_for(ctx.isa).add, rows, extent.rows, grain_of(extent.columns));
  });
}

void run_convert(Context& ctx, const ConvertArgs& args, std::byte*) {
  each_extent(args.y, all_contiguous(args.y, args.x), [&](Extent extent, std::int64_t first, bool flat) {
    const ConvertRows rows{.to = element_of(args.y.dtype()),
                           .from = element_of(args.x.dtype()),
                           .y = rows_from(args.y, first, flat),
                           .x = rows_from(args.x, first, flat),
                           .columns = extent.columns};
    run_parallel(ctx, kernels_for(ctx.isa).convert, rows, extent.rows, grain_of(extent.columns));
  });
}

void run_zero(Context& ctx, const ZeroArgs& args, std::byte*) {
  const std::int64_t size = size_of(args.y.dtype());
  each_extent(args.y, args.y.contiguous(), [&](Extent extent, std::int64_t first, bool flat) {
    const Rows y = rows_from(args.y, first, flat);
    parallel_for(ctx.threads, extent.rows, grain_of(extent.columns), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        std::memset(static_cast<std::byte*>(y.data) + row * y.stride * size, 0,
                    static_cast<std::size_t>(extent.columns * size));
      }
    });
  });
}

const char* refuse_bias_grad(const Context&, const BiasGradArgs& args) {
  return has_kernels(args.dy.dtype()) ? nullptr : kNoF64;
}
const char* refuse_rms_norm_weight_grad(const Context&, const RmsNormWeightGradArgs& args) {
  return has_kernels(args.x.dtype()) ? nullptr : kNoF64;
}
const char* refuse_rms_norm_input_grad(const Context&, const RmsNormInputGradArgs& args) {
  return has_kernels(args.x.dtype()) ? nullptr : kNoF64;
}
const char* refuse_swiglu_grad(const Context&, const SwigluGradArgs& args) {
  return has_kernels(args.dy.dtype()) ? nullptr : kNoF64;
}
const char* refuse_embedding_weight_grad(const Context&, const EmbeddingWeightGradArgs& args) {
  return has_kernels(args.dy.dtype()) ? nullptr : kNoF64;
}
const char* refuse_add(const Context&, const AddArgs& args) {
  return has_kernels(args.y.dtype()) ? nullptr : kNoF64;
}
const char* refuse_convert(const Context&, const ConvertArgs& args) {
  return has_kernels(args.y.dtype()) && has_kernels(args.x.dtype()) ? nullptr : kNoF64;
}

}  // namespace

ImplementationList<BiasGradArgs> bias_grad_list() {
  static const auto kList = simd_list<BiasGradArgs>(refuse_bias_grad, nullptr, run_bias_grad);
  return kList;
}

ImplementationList<RmsNormWeightGradArgs> rms_norm_weight_grad_list() {
  static const auto kList =
      simd_list<RmsNormWeightGradArgs>(refuse_rms_norm_weight_grad, nullptr, run_rms_norm_weight_grad);
  return kList;
}

ImplementationList<RmsNormInputGradArgs> rms_norm_input_grad_list() {
  static const auto kList =
      simd_list<RmsNormInputGradArgs>(refuse_rms_norm_input_grad, nullptr, run_rms_norm_input_grad);
  return kList;
}

ImplementationList<SwigluGradArgs> swiglu_grad_list() {
  static const auto kList = simd_list<SwigluGradArgs>(refuse_swiglu_grad, nullptr, run_swiglu_grad);
  return kList;
}

ImplementationList<EmbeddingWeightGradArgs> embedding_weight_grad_list() {
  static const auto kList =
      simd_list<EmbeddingWeightGradArgs>(refuse_embedding_weight_grad, nullptr, run_embedding_weight_grad);
  return kList;
}

ImplementationList<AddArgs> add_list() {
  static const auto kList = simd_list<AddArgs>(refuse_add, nullptr, run_add);
  return kList;
}

ImplementationList<ConvertArgs> convert_list() {
  static const auto kList = simd_list<ConvertArgs>(refuse_convert, nullptr, run_convert);
  return kList;
}

// Bytes are cleared, which needs no kernel of a level.
ImplementationList<ZeroArgs> zero_list() {
  static const std::array<Implementation<ZeroArgs>, 1> kList = {
      {{"rows", Backend::kCpu, Isa::kAvx2, nullptr, nullptr, run_zero}}};
  return kList;
}

}  // namespace caravan::ops::cpu

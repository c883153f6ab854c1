// dw = dy^T x through oneDNN, which turns dy itself: straight where it reads our tensors as they stand, otherwise in
// blocks of tokens by way of f32 (or contiguous) copies.  Narrow ones by a kernel of ours.
#include <algorithm>
#include <array>

#include "caravan/ops/args.h"
#include "caravan/ops/cpu/narrow_product.h"
#include "caravan/ops/cpu/plan_cache.h"
#include "caravan/ops/cpu/staging.h"

namespace caravan::ops::cpu {
namespace {

// Tokens of a block of the staged way: dw is read and written once a block.
constexpr std::int64_t kStagedTokens = 512;

struct WeightGradPlan {
  DType dtype = DType::kF32;  // that oneDNN computes from
  bool staged = false;
  std::int64_t block = 0;
  std::int64_t dy_bytes = 0;  // of the workspace: blocks of dy and x, oneDNN's scratch
  std::int64_t x_bytes = 0;
  std::int64_t scratch_bytes = 0;
};

// Of `tokens` tokens.
Product& product_of(Context& ctx, const WeightGradPlan& plan, const LinearWeightGradArgs& args, std::int64_t tokens,
                    bool add) {
  const std::int64_t out = args.dw.rows();
  const std::int64_t in = args.dw.columns();
  const auto stride = [&](const Tensor& tensor) {
    return plan.staged || tensor.rows() == 1 ? tensor.columns() : tensor.row_stride();
  };
  const ProductSpec spec{.tokens = out,
                         .x_dtype = plan.dtype,
                         .x_stride = stride(args.dy),
                         .x_turned = true,
                         .y_dtype = DType::kF32,
                         .y_stride = in,
                         .rows = in,
                         .residual = add ? Residual::kInPlace : Residual::kNone};
  // x is the matrix that is multiplied by.
  return plans_of(ctx).product(ctx.threads, spec,
                               plain_weight_layout(plan.dtype, tokens, in, Direction::kInputGrad, stride(args.x)));
}

WeightGradPlan plan_of(Context& ctx, const LinearWeightGradArgs& args) {
  const std::int64_t tokens = args.dy.rows();
  WeightGradPlan plan;
  plan.dtype = product_dtype(ctx, args.dy.dtype());
  plan.staged = plan.dtype != args.dy.dtype();
  plan.block = tokens;
  const bool add = args.accumulate == Accumulate::kAdd;
  with_onednn(ctx, "linear_weight_grad", [&] {
    const bool odd_rows = !args.dy.contiguous() || !args.x.contiguous();
    if (!plan.staged && odd_rows && product_of(ctx, plan, args, tokens, add).slow()) {
      plan.staged = true;
    }
    if (plan.staged) {
      plan.block = std::min(kStagedTokens, tokens);
      plan.dy_bytes = aligned(plan.block * args.dy.columns() * size_of(plan.dtype));
      plan.x_bytes = aligned(plan.block * args.x.columns() * size_of(plan.dtype));
    }
    for (std::int64_t begin = 0; begin < tokens; begin += plan.block) {
      const Product& product = product_of(ctx, plan, args, std::min(plan.block, tokens - begin), add || begin > 0);
      plan.scratch_bytes = std::max(plan.scratch_bytes, product.scratch_bytes());
    }
  });
  return plan;
}

std::int64_t workspace(Context& ctx, const LinearWeightGradArgs& args) {
  const WeightGradPlan plan = plan_of(ctx, args);
  return plan.dy_bytes + plan.x_bytes + plan.scratch_bytes;
}

void run(Context& ctx, const LinearWeightGradArgs& args, std::byte* workspace) {
  const WeightGradPlan plan = plan_of(ctx, args);
  const std::int64_t tokens = args.dy.rows();
  std::byte* const dy_block = workspace;
  std::byte* const x_block = workspace + plan.dy_bytes;
  for (std::int64_t begin = 0; begin < tokens; begin += plan.block) {
    const std::int64_t end = std::min(begin + plan.block, tokens);
    const Tensor dy = args.dy.row_range(begin, end);
    const Tensor x = args.x.row_range(begin, end);
    if (plan.staged) {
      stage_rows(ctx, plan.dtype, dy, dy_block);
      stage_rows(ctx, plan.dtype, x, x_block);
    }
    with_onednn(ctx, "linear_weight_grad", [&] {
      product_of(ctx, plan, args, end - begin, args.accumulate == Accumulate::kAdd || begin > 0)
          .run(plans_of(ctx).stream(), {.y = args.dw.address(),
                                        .x = plan.staged ? dy_block : dy.address(),
                                        .weight = plan.staged ? x_block : x.address(),
                                        .scratch = x_block + plan.x_bytes});
    });
  }
}

std::int64_t workspace_narrow(Context& ctx, const LinearWeightGradArgs& args) {
  return narrow_workspace(ctx, args.dw.rows(), args.dw.columns());
}

const float* floats(const Tensor& tensor) {
  return reinterpret_cast<const float*>(tensor.address());
}

void run_narrow_product(Context& ctx, const LinearWeightGradArgs& args, std::byte* workspace) {
  run_narrow(ctx,
             {.dy = floats(args.dy),
              .dy_stride = args.dy.row_stride(),
              .x = floats(args.x),
              .x_stride = args.x.row_stride(),
              .dw = reinterpret_cast<float*>(args.dw.address()),
              .dw_stride = args.dw.row_stride(),
              .tokens = args.dy.rows(),
              .out = args.dw.rows(),
              .in = args.dw.columns(),
              .add = args.accumulate == Accumulate::kAdd},
             workspace);
}

const char* refuse_narrow_product(const Context& ctx, const LinearWeightGradArgs& args) {
  if (args.dy.dtype() != DType::kF32) {
    return "f32 alone";
  }
  return refuse_narrow(ctx, args.dw.rows(), args.dw.columns());
}

const char* refuse_native(const Context& ctx, const LinearWeightGradArgs& args) {
  return refuse_native_dtype(ctx, args.dy.dtype());
}

const char* refuse_widened(const Context&, const LinearWeightGradArgs& args) {
  return refuse_widened_dtype(args.dy.dtype());
}

}  // namespace

ImplementationList<LinearWeightGradArgs> linear_weight_grad_list() {
  static const std::array<Implementation<LinearWeightGradArgs>, 3> kList = {
      {{"simd-narrow", Backend::kCpu, Isa::kAvx2, refuse_narrow_product, workspace_narrow, run_narrow_product},
       {"onednn", Backend::kCpu, Isa::kAvx2, refuse_native, workspace, run},
       {"onednn-upcast", Backend::kCpu, Isa::kAvx2, refuse_widened, workspace, run}}};
  return kList;
}

}  // namespace caravan::ops::cpu

// y = x W^T and dx = dy W through oneDNN: straight where it reads and writes our tensors as they stand, otherwise
// in blocks of tokens by way of f32 (or contiguous) copies.
#include <algorithm>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/cpu/block_linear.h"
#include "caravan/ops/cpu/kernel_choice.h"
#include "caravan/ops/cpu/plan_cache.h"
#include "caravan/ops/cpu/staging.h"

namespace caravan::ops::cpu {
namespace {

// Tokens of a block of the staged way: enough for the product to run near its peak, few enough that the f32 copies stay
// small beside the activations.
constexpr std::int64_t kStagedTokens = 256;

// Both ops as one product: y = x W^T + bias + residual, or y = x W + residual.
struct Call {
  Tensor y, x;
  const Weight& w;
  Tensor bias, residual;  // undefined when absent
  Direction direction;
};

Call call_of(const LinearArgs& args) {
  return {args.y, args.x, args.w, args.bias, args.residual, Direction::kForward};
}

Call call_of(const LinearInputGradArgs& args) {
  return {
      args.dx, args.dy, args.w, {}, args.accumulate == Accumulate::kAdd ? args.dx : Tensor{}, Direction::kInputGrad};
}

// How a call is served.  Made anew for each call from shapes alone; the plans behind it are cached.
struct LinearPlan {
  DType dtype = DType::kF32;  // that oneDNN computes from
  const WeightLayout* layout = nullptr;
  bool stage_x = false;  // x is copied (and widened) block by block
  bool stage_y = false;  // the product is left in f32 and an epilogue finishes it
  std::int64_t block = 0;
  Product* product = nullptr;  // of `block` tokens
  Product* last = nullptr;     // of the tokens that are left over, or null
  std::int64_t x_bytes = 0;    // of the workspace: x's block, the f32 product, oneDNN's scratch
  std::int64_t y_bytes = 0;
  std::int64_t scratch_bytes = 0;
};

ProductSpec straight_spec(const Call& args) {
  ProductSpec spec{.tokens = args.x.rows(),
                   .x_dtype = args.x.dtype(),
                   .x_stride = args.x.rows() == 1 ? args.x.columns() : args.x.row_stride(),
                   .y_dtype = args.y.dtype(),
                   .y_stride = args.y.rows() == 1 ? args.y.columns() : args.y.row_stride(),
                   .rows = args.y.columns(),
                   .bias = args.bias.defined()};
  if (args.residual.defined()) {
    spec.residual = args.residual.address() == args.y.address() ? Residual::kInPlace : Residual::kBeside;
  }
  return spec;
}

// Blocked weights go with contiguous rows only; oneDNN 2.6 would fall to plain loops.  A residual is read through y's
// own strides.
void choose_stages(LinearPlan& plan, const Call& args) {
  const bool widen = plan.dtype != args.x.dtype();
  const bool odd_residual =
      args.residual.defined() && args.y.rows() > 1 && args.residual.row_stride() != args.y.row_stride();
  plan.stage_x = widen || (plan.layout->blocked && !args.x.contiguous());
  plan.stage_y = (plan.layout->blocked && !args.y.contiguous()) || odd_residual ||
                 (widen && (args.y.dtype() != DType::kF32 || args.bias.defined() || args.residual.defined()));
}

void plan_staged(Context& ctx, LinearPlan& plan, const Call& args) {
  const std::int64_t in = args.x.columns();
  const std::int64_t out = args.y.columns();
  plan.block = std::min(kStagedTokens, args.x.rows());
  const auto product_of = [&](std::int64_t tokens) {
    const ProductSpec spec{.tokens = tokens,
                           .x_dtype = plan.dtype,
                           .x_stride = plan.stage_x ? in : args.x.row_stride(),
                           .y_dtype = plan.stage_y ? DType::kF32 : args.y.dtype(),
                           .y_stride = plan.stage_y ? out : args.y.row_stride(),
                           .rows = out,
                           // Without an epilogue of ours it is oneDNN that adds them.
                           .bias = !plan.stage_y && args.bias.defined(),
                           .residual = plan.stage_y ? Residual::kNone : straight_spec(args).residual};
    return &plans_of(ctx).product(ctx.threads, spec, *plan.layout);
  };
  plan.product = product_of(plan.block);
  const std::int64_t left = args.x.rows() % plan.block;
  plan.last = left == 0 ? nullptr : product_of(left);
  plan.x_bytes = plan.stage_x ? plan.block * in * size_of(plan.dtype) : 0;
  plan.y_bytes = plan.stage_y ? plan.block * out * size_of(DType::kF32) : 0;
}

LinearPlan plan_of(Context& ctx, const Call& args) {
  PlanCache& plans = plans_of(ctx);
  LinearPlan plan;
  plan.dtype = product_dtype(ctx, args.x.dtype());
  with_onednn(ctx, "linear", [&] {
    const std::int64_t in = args.x.columns();
    const std::int64_t out = args.y.columns();
    plan.layout = &plans.layout(plan.dtype, in, out, args.direction);
    for (;;) {
      choose_stages(plan, args);
      if (plan.stage_x || plan.stage_y) {
        plan_staged(ctx, plan, args);
      } else {
        plan.block = args.x.rows();
        plan.product = &plans.product(ctx.threads, straight_spec(args), *plan.layout);
      }
      if (!plan.layout->blocked || !plan.product->slow()) {
        break;
      }
      plan.layout = &plans.plain_layout(plan.dtype, in, out, args.direction);
    }
    plan.scratch_bytes = std::max(plan.product->scratch_bytes(), plan.last == nullptr ? 0 : plan.last->scratch_bytes());
  });
  plan.x_bytes = aligned(plan.x_bytes);
  plan.y_bytes = aligned(plan.y_bytes);
  return plan;
}

Tensor rows_or_none(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
  return tensor.defined() ? tensor.row_range(begin, end) : tensor;
}

std::byte* address_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.address() : nullptr;
}

void finish_y(Context& ctx, const Call& args, const Tensor& y, const Tensor& residual, std::byte* product) {
  const std::int64_t columns = y.columns();
  const EpilogueRows rows{.element = element_of(y.dtype()),
                          .bias_element = element_of(args.x.dtype()),
                          .y = rows_of(y),
                          .product = {product, columns},
                          .bias = address_or_null(args.bias),
                          .residual = rows_of(residual),
                          .columns = columns};
  parallel_for(ctx.threads, y.rows(), grain_of(columns),
               [&](std::int64_t begin, std::int64_t end) { kernels_for(ctx.isa).epilogue(rows, begin, end); });
}

void run_call(Context& ctx, const Call& args, std::byte* workspace) {
  const LinearPlan plan = plan_of(ctx, args);
  const std::byte* weight = prepare_weight(ctx, args.w, *plan.layout);
  std::byte* const x_block = workspace;
  std::byte* const y_block = workspace + plan.x_bytes;
  std::byte* const scratch = y_block + plan.y_bytes;
  for (std::int64_t begin = 0; begin < args.x.rows(); begin += plan.block) {
    const std::int64_t end = std::min(begin + plan.block, args.x.rows());
    const Tensor x = args.x.row_range(begin, end);
    const Tensor y = args.y.row_range(begin, end);
    const Tensor residual = rows_or_none(args.residual, begin, end);
    if (plan.stage_x) {
      stage_rows(ctx, plan.dtype, x, x_block);
    }
    const ProductCall call{.y = plan.stage_y ? y_block : y.address(),
                           .x = plan.stage_x ? x_block : x.address(),
                           .weight = weight,
                           .bias = plan.stage_y ? nullptr : address_or_null(args.bias),
                           .residual = plan.stage_y ? nullptr : address_or_null(residual),
                           .scratch = scratch};
    with_onednn(ctx, "linear", [&] {
      Product& product = end - begin == plan.block ? *plan.product : *plan.last;
      product.run(plans_of(ctx).stream(), call);
    });
    if (plan.stage_y) {
      finish_y(ctx, args, y, residual, y_block);
    }
  }
}

template <typename Args>
void prepare(Context& ctx, const Args& args) {
  const Call call = call_of(args);
  prepare_weight(ctx, call.w, *plan_of(ctx, call).layout);
}

template <typename Args>
std::int64_t workspace(Context& ctx, const Args& args) {
  const LinearPlan plan = plan_of(ctx, call_of(args));
  return plan.x_bytes + plan.y_bytes + plan.scratch_bytes;
}

template <typename Args>
void run(Context& ctx, const Args& args, std::byte* workspace) {
  run_call(ctx, call_of(args), workspace);
}

template <typename Args>
const char* refuse_native(const Context& ctx, const Args& args) {
  return refuse_native_dtype(ctx, call_of(args).x.dtype());
}

template <typename Args>
const char* refuse_widened(const Context&, const Args& args) {
  return refuse_widened_dtype(call_of(args).x.dtype());
}

template <typename Args>
constexpr Implementation<Args> kNative = {"onednn",        Backend::kCpu, Isa::kAvx2,   refuse_native<Args>,
                                          workspace<Args>, run<Args>,     prepare<Args>};
template <typename Args>
constexpr Implementation<Args> kWidened = {"onednn-upcast", Backend::kCpu, Isa::kAvx2,   refuse_widened<Args>,
                                           workspace<Args>, run<Args>,     prepare<Args>};

}  // namespace

ImplementationList<LinearArgs> linear_list() {
  static const std::array<Implementation<LinearArgs>, 3> kList = {
      {{"blocks", Backend::kCpu, Isa::kAvx2, refuse_blocks, block_linear_workspace, run_block_linear},
       kNative<LinearArgs>,
       kWidened<LinearArgs>}};
  return kList;
}

ImplementationList<LinearInputGradArgs> linear_input_grad_list() {
  static const std::array<Implementation<LinearInputGradArgs>, 2> kList = {
      {kNative<LinearInputGradArgs>, kWidened<LinearInputGradArgs>}};
  return kList;
}

}  // namespace caravan::ops::cpu

// dx = dy W, dw = dy^T x and db = sum of dy's rows, each element one sum in double.
#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

template <typename T>
void input_grad(const Context& ctx, const LinearInputGradArgs& args) {
  const std::int64_t out = args.dy.columns();
  const std::int64_t in = args.dx.columns();
  const Rows<const T> dy(args.dy);
  const Rows<const T> w(args.w.plain());
  const Rows<T> dx(args.dx);
  parallel_for(ctx.threads, args.dy.rows(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t i = 0; i < in; ++i) {
        double sum = 0;
        for (std::int64_t o = 0; o < out; ++o) {
          sum += load(dy[t][o]) * load(w[o][i]);
        }
        store(dx[t][i], sum, args.accumulate);
      }
    }
  });
}

// S: the dtype of dw.
template <typename T, typename S>
void weight_grad(const Context& ctx, const LinearWeightGradArgs& args) {
  const std::int64_t tokens = args.dy.rows();
  const std::int64_t in = args.x.columns();
  const Rows<const T> dy(args.dy);
  const Rows<const T> x(args.x);
  const Rows<S> dw(args.dw);
  parallel_for(ctx.threads, args.dy.columns(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t o = begin; o < end; ++o) {
      for (std::int64_t i = 0; i < in; ++i) {
        double sum = 0;
        for (std::int64_t t = 0; t < tokens; ++t) {
          sum += load(dy[t][o]) * load(x[t][i]);
        }
        store(dw[o][i], sum, args.accumulate);
      }
    }
  });
}

// S: the dtype of db.
template <typename T, typename S>
void bias_grad(const BiasGradArgs& args) {
  const Rows<const T> dy(args.dy);
  auto* db = elements<S>(args.db);
  for (std::int64_t o = 0; o < args.dy.columns(); ++o) {
    double sum = 0;
    for (std::int64_t t = 0; t < args.dy.rows(); ++t) {
      sum += load(dy[t][o]);
    }
    store(db[o], sum, args.accumulate);
  }
}

void run_input_grad(Context& ctx, const LinearInputGradArgs& args, std::byte*) {
  with_float_type(args.dy.dtype(), [&]<typename T>() { input_grad<T>(ctx, args); });
}

void run_weight_grad(Context& ctx, const LinearWeightGradArgs& args, std::byte*) {
  with_float_types(args.dy.dtype(), [&]<typename T, typename S>() { weight_grad<T, S>(ctx, args); });
}

void run_bias_grad(Context&, const BiasGradArgs& args, std::byte*) {
  with_float_types(args.dy.dtype(), [&]<typename T, typename S>() { bias_grad<T, S>(args); });
}

constexpr Implementation<LinearInputGradArgs> kInputGradList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_input_grad}};
constexpr Implementation<LinearWeightGradArgs> kWeightGradList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_weight_grad}};
constexpr Implementation<BiasGradArgs> kBiasGradList[] = {
    {"ref", Backend::kRef, Isa::kBaseline, nullptr, nullptr, run_bias_grad}};

}  // namespace

ImplementationList<LinearInputGradArgs> linear_input_grad_list() {
  return kInputGradList;
}
ImplementationList<LinearWeightGradArgs> linear_weight_grad_list() {
  return kWeightGradList;
}
ImplementationList<BiasGradArgs> bias_grad_list() {
  return kBiasGradList;
}

}  // namespace caravan::ops::ref

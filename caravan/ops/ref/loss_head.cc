// nll[t] = log sum_v exp(logit[t, v]) - logit[t, target[t]], one token's logits at a time.
#include "caravan/ops/loss_head.h"

#include <algorithm>
#include <cmath>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/host_checks.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

double negative_log_likelihood(const double* logits, std::int64_t vocab, std::int32_t target) {
  const double maximum = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (std::int64_t v = 0; v < vocab; ++v) {
    sum += std::exp(logits[v] - maximum);
  }
  return maximum + std::log(sum) - logits[target];
}

// S: the dtype of the result.
template <typename T, typename S>
void run_typed(const Context& ctx, const LossHeadArgs& args, double* logits) {
  const std::int64_t features = args.hidden.columns();
  const std::int64_t vocab = args.w.plain().rows();
  const Rows<const T> hidden(args.hidden);
  const Rows<const T> w(args.w.plain());
  const auto* targets = elements<const std::int32_t>(args.targets);
  auto* nll = elements<S>(args.token_nll);

  for (std::int64_t t = 0; t < args.hidden.rows(); ++t) {
    if (targets[t] == kIgnoredTarget) {
      nll[t] = 0;
      continue;
    }
    parallel_for(ctx.threads, vocab, 256, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t v = begin; v < end; ++v) {
        double sum = 0;
        for (std::int64_t i = 0; i < features; ++i) {
          sum += load(hidden[t][i]) * load(w[v][i]);
        }
        logits[v] = sum;
      }
    });
    nll[t] = round_to<S>(negative_log_likelihood(logits, vocab, targets[t]));
  }
}

std::int64_t workspace(Context&, const LossHeadArgs& args) {
  return args.w.plain().rows() * static_cast<std::int64_t>(sizeof(double));
}

void run(Context& ctx, const LossHeadArgs& args, std::byte* scratch) {
  check_targets(args.targets, args.w.plain().rows());
  auto* logits = reinterpret_cast<double*>(scratch);
  with_float_type(args.hidden.dtype(), [&]<typename T>() {
    if (args.hidden.dtype() == DType::kF64) {
      run_typed<T, double>(ctx, args, logits);
    } else {
      run_typed<T, float>(ctx, args, logits);
    }
  });
}

constexpr Implementation<LossHeadArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, workspace, run}};

}  // namespace

ImplementationList<LossHeadArgs> loss_head_list() {
  return kList;
}

}  // namespace caravan::ops::ref

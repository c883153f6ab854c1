// The loss head with its gradients: a token's logits give its loss and its row of d_hidden; dw is made row by row of
// the vocabulary from the logits of that row alone, so that each of its elements is one sum in double.
#include <algorithm>
#include <cmath>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/host_checks.h"
#include "caravan/ops/loss_head.h"
#include "caravan/ops/ref/element.h"

namespace caravan::ops::ref {
namespace {

// S: the dtype of token_nll and dw.
template <typename T, typename S>
class Gradients {
 public:
  // scratch: as workspace() says.
  Gradients(const Context& ctx, const LossHeadGradArgs& args, double* scratch)
      : args_(args),
        threads_(ctx.threads),
        tokens_(args.hidden.rows()),
        features_(args.hidden.columns()),
        vocab_(args.w.plain().rows()),
        hidden_(args.hidden),
        w_(args.w.plain()),
        targets_(elements<const std::int32_t>(args.targets)),
        normalisers_(scratch),
        probabilities_(scratch + tokens_),
        coefficients_(scratch + tokens_ + vocab_) {}

  // Token t's loss, its row of d_hidden and the logarithm of its softmax's denominator.
  void of_token(std::int64_t t) const {
    parallel_for(threads_, vocab_, 256, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t v = begin; v < end; ++v) {
        probabilities_[v] = logit(t, v);
      }
    });
    const double maximum = *std::max_element(probabilities_, probabilities_ + vocab_);
    double sum = 0;
    for (std::int64_t v = 0; v < vocab_; ++v) {
      sum += std::exp(probabilities_[v] - maximum);
    }
    normalisers_[t] = maximum + std::log(sum);
    elements<S>(args_.token_nll)[t] = round_to<S>(normalisers_[t] - probabilities_[targets_[t]]);
    for (std::int64_t v = 0; v < vocab_; ++v) {
      probabilities_[v] = std::exp(probabilities_[v] - normalisers_[t]);
    }
    const Rows<T> d_hidden(args_.d_hidden);
    parallel_for(threads_, features_, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        double gradient = 0;
        for (std::int64_t v = 0; v < vocab_; ++v) {
          gradient += (probabilities_[v] - onehot(t, v)) * load(w_[v][i]);
        }
        d_hidden[t][i] = round_to<T>(args_.scale * gradient);
      }
    });
  }

  // Adds to the rows of dw that belong to one of as many equal parts of the vocabulary as there are threads; after
  // of_token() of every token that counts.
  void of_vocabulary_part(std::int64_t part) const {
    const Rows<S> dw(args_.dw);
    double* coefficient = coefficients_ + part * tokens_;
    for (std::int64_t v = part * vocab_ / threads_; v < (part + 1) * vocab_ / threads_; ++v) {
      for (std::int64_t t = 0; t < tokens_; ++t) {
        coefficient[t] = ignored(t) ? 0 : std::exp(logit(t, v) - normalisers_[t]) - onehot(t, v);
      }
      for (std::int64_t i = 0; i < features_; ++i) {
        double sum = 0;
        for (std::int64_t t = 0; t < tokens_; ++t) {
          if (!ignored(t)) {  // its hidden row may hold NaN
            sum += coefficient[t] * load(hidden_[t][i]);
          }
        }
        store(dw[v][i], args_.scale * sum, Accumulate::kAdd);
      }
    }
  }

  bool ignored(std::int64_t t) const { return targets_[t] == kIgnoredTarget; }

 private:
  double logit(std::int64_t t, std::int64_t v) const {
    double sum = 0;
    for (std::int64_t i = 0; i < features_; ++i) {
      sum += load(hidden_[t][i]) * load(w_[v][i]);
    }
    return sum;
  }

  double onehot(std::int64_t t, std::int64_t v) const { return targets_[t] == v ? 1 : 0; }

  const LossHeadGradArgs& args_;
  std::int64_t threads_, tokens_, features_, vocab_;
  Rows<const T> hidden_, w_;
  const std::int32_t* targets_;
  double* normalisers_;    // [tokens]
  double* probabilities_;  // [vocab]
  double* coefficients_;   // [threads, tokens]
};

std::int64_t workspace(Context& ctx, const LossHeadGradArgs& args) {
  const std::int64_t coefficients = args.dw.defined() ? ctx.threads * args.hidden.rows() : 0;
  return (args.hidden.rows() + args.w.plain().rows() + coefficients) * static_cast<std::int64_t>(sizeof(double));
}

template <typename T, typename S>
void run_typed(const Context& ctx, const LossHeadGradArgs& args, double* scratch) {
  const Gradients<T, S> gradients(ctx, args, scratch);
  for (std::int64_t t = 0; t < args.hidden.rows(); ++t) {
    if (gradients.ignored(t)) {
      elements<S>(args.token_nll)[t] = 0;
      std::fill_n(Rows<T>(args.d_hidden)[t], args.hidden.columns(), T{});
    } else {
      gradients.of_token(t);
    }
  }
  if (args.dw.defined()) {
    parallel_for(ctx.threads, ctx.threads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t part = begin; part < end; ++part) {
        gradients.of_vocabulary_part(part);
      }
    });
  }
}

void run(Context& ctx, const LossHeadGradArgs& args, std::byte* scratch) {
  check_targets(args.targets, args.w.plain().rows());
  with_float_types(args.hidden.dtype(),
                   [&]<typename T, typename S>() { run_typed<T, S>(ctx, args, reinterpret_cast<double*>(scratch)); });
}

constexpr Implementation<LossHeadGradArgs> kList[] = {{"ref", Backend::kRef, Isa::kBaseline, nullptr, workspace, run}};

}  // namespace

ImplementationList<LossHeadGradArgs> loss_head_grad_list() {
  return kList;
}

}  // namespace caravan::ops::ref

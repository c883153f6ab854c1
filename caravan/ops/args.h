// The checked arguments of every op, as its implementations receive them, and the lists the backends offer.
// For the .cc files of ops and its backends only.
//
// The front end (ops/<op>.cc) checks shapes, dtypes and devices, returns early when there is nothing to compute, and
// dispatches over the cpu list followed by the ref list.  An implementation may rely on the op header's contract and
// checks nothing again.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "caravan/base/philox.h"
#include "caravan/ops/adamw.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/dispatch.h"
#include "caravan/ops/linear.h"
#include "caravan/ops/rms_norm.h"
#include "caravan/ops/rope.h"
#include "caravan/ops/sampling.h"
#include "caravan/ops/step_record.h"

namespace caravan::ops {

class DeviceClock;  // trace.h

struct LinearArgs {
  Tensor y, x;
  Weight w;
  Tensor bias, residual;  // undefined when absent
};

struct LinearInputGradArgs {
  Tensor dx, dy;
  Weight w;
  Accumulate accumulate;
};

struct LinearWeightGradArgs {
  Tensor dw, dy, x;
  Accumulate accumulate;
};

struct BiasGradArgs {
  Tensor db, dy;
  Accumulate accumulate;
};

struct RmsNormArgs {
  Tensor y, rstd, x, w;  // rstd undefined when absent
  double eps;
  NormRounding rounding;
};

struct RmsNormInputGradArgs {
  Tensor dx, dy, x, rstd, w;
  Accumulate accumulate;
};

struct RmsNormWeightGradArgs {
  Tensor dw, dy, x, rstd;
  NormRounding rounding;
  Accumulate accumulate;
};

struct RopeTablesArgs {
  Tensor cos, sin, positions, frequencies, kind;
  double attention_scaling;
  DType rounded_to;
};

struct RopeArgs {
  Tensor y, x, cos, sin;
  RopePairing pairing;
  bool inverse;
};

struct AttentionArgs {
  Tensor out, lse, query, key, value;  // lse undefined when absent
  HeadShape heads;
  const std::vector<AttentionRange>* ranges;  // none without queries or keys
  double scale;
};

struct AttentionGradArgs {
  Tensor d_query, d_key, d_value, d_out, query, key, value, out, lse;
  HeadShape heads;
  const std::vector<AttentionRange>* ranges;  // none without queries or keys
  double scale;
};

struct SwigluArgs {
  Tensor y, gate_up;
};

struct SwigluGradArgs {
  Tensor d_gate_up, dy, gate_up;
};

struct EmbeddingArgs {
  Tensor y;
  Weight table;
  Tensor ids;
};

struct EmbeddingWeightGradArgs {
  Tensor d_table, dy, ids;
  std::int64_t skipped_id = -1;
};

struct LossHeadArgs {
  Tensor token_nll, hidden;
  Weight w;
  Tensor targets;
};

struct LossHeadGradArgs {
  Tensor token_nll, d_hidden, dw;  // dw undefined when the weight is not trained
  Tensor hidden;
  Weight w;
  Tensor targets;
  double scale;
};

struct AddArgs {
  Tensor y, a, b;
};

struct ConvertArgs {
  Tensor y, x;
};

struct ZeroArgs {
  Tensor y;
};

struct AdamWArgs {
  Tensor master, m, v, gradient;
  AdamW settings;
  Tensor record;  // undefined: the settings say all
};

struct SumOfSquaresArgs {
  Tensor sum, x;
};

// What of AdamW's factors changes from step to step.
struct AdamWFactors {
  double lr, gradient_scale;
  double correction1;      // 1 - beta1^step
  double root_correction;  // sqrt(1 - beta2^step)
};
// Of settings that say all.
inline AdamWFactors factors_of(const AdamW& settings) {
  const auto step = static_cast<double>(settings.step);
  return {settings.lr, settings.gradient_scale, 1 - std::pow(settings.beta1, step),
          std::sqrt(1 - std::pow(settings.beta2, step))};
}

struct DecideStepArgs {
  Tensor record;
  StepRule rule;
};

struct AddSumArgs {
  Tensor sum, x;
};

struct SumWordsArgs {
  Tensor sum, x;
};

struct AppendRowsArgs {
  Tensor dst, src, at;
};

struct CachedAttentionArgs {
  Tensor out, query, key, value;
  HeadShape heads;
  Tensor begins, lengths;
  std::int64_t max_length;
  double scale;
};

struct ArgmaxArgs {
  Tensor ids, logits;
};

struct SampleIdsArgs {
  Tensor ids, logits;
  SamplingRows by;
};

struct RandomNormalArgs {
  Tensor y;
  RandomStream stream;
  std::uint64_t first;
  double deviation;
};

struct CountUpArgs {
  Tensor values;
};

template <typename Args>
using ImplementationList = std::span<const Implementation<Args>>;

// What ops/cpu offers, in order of preference.
namespace cpu {
ImplementationList<LinearArgs> linear_list();
ImplementationList<RmsNormArgs> rms_norm_list();
ImplementationList<RopeTablesArgs> rope_tables_list();
ImplementationList<RopeArgs> rope_list();
ImplementationList<AttentionArgs> attention_list();
ImplementationList<SwigluArgs> swiglu_list();
ImplementationList<EmbeddingArgs> embedding_list();
ImplementationList<LossHeadArgs> loss_head_list();
ImplementationList<LinearInputGradArgs> linear_input_grad_list();
ImplementationList<LinearWeightGradArgs> linear_weight_grad_list();
ImplementationList<BiasGradArgs> bias_grad_list();
ImplementationList<RmsNormInputGradArgs> rms_norm_input_grad_list();
ImplementationList<RmsNormWeightGradArgs> rms_norm_weight_grad_list();
ImplementationList<AttentionGradArgs> attention_grad_list();
ImplementationList<SwigluGradArgs> swiglu_grad_list();
ImplementationList<EmbeddingWeightGradArgs> embedding_weight_grad_list();
ImplementationList<LossHeadGradArgs> loss_head_grad_list();
ImplementationList<AddArgs> add_list();
ImplementationList<ConvertArgs> convert_list();
ImplementationList<ZeroArgs> zero_list();
ImplementationList<AdamWArgs> adamw_list();
ImplementationList<SumOfSquaresArgs> sum_of_squares_list();
ImplementationList<SumWordsArgs> sum_words_list();
// How many plans the cache has made since it was new, dropped ones included.
std::int64_t plans_made(const PlanCache& plans);
}  // namespace cpu

// What ops/cuda offers; empty in a build without CUDA.
namespace cuda {
ImplementationList<LinearArgs> linear_list();
ImplementationList<RmsNormArgs> rms_norm_list();
ImplementationList<RopeTablesArgs> rope_tables_list();
ImplementationList<RopeArgs> rope_list();
ImplementationList<AttentionArgs> attention_list();
ImplementationList<SwigluArgs> swiglu_list();
ImplementationList<EmbeddingArgs> embedding_list();
ImplementationList<LossHeadArgs> loss_head_list();
ImplementationList<LinearInputGradArgs> linear_input_grad_list();
ImplementationList<LinearWeightGradArgs> linear_weight_grad_list();
ImplementationList<BiasGradArgs> bias_grad_list();
ImplementationList<RmsNormInputGradArgs> rms_norm_input_grad_list();
ImplementationList<RmsNormWeightGradArgs> rms_norm_weight_grad_list();
ImplementationList<AttentionGradArgs> attention_grad_list();
ImplementationList<SwigluGradArgs> swiglu_grad_list();
ImplementationList<EmbeddingWeightGradArgs> embedding_weight_grad_list();
ImplementationList<LossHeadGradArgs> loss_head_grad_list();
ImplementationList<AddArgs> add_list();
ImplementationList<ConvertArgs> convert_list();
ImplementationList<ZeroArgs> zero_list();
ImplementationList<AdamWArgs> adamw_list();
ImplementationList<SumOfSquaresArgs> sum_of_squares_list();
ImplementationList<DecideStepArgs> decide_step_list();
ImplementationList<AddSumArgs> add_sum_list();
ImplementationList<SumWordsArgs> sum_words_list();
ImplementationList<AppendRowsArgs> append_rows_list();
ImplementationList<CachedAttentionArgs> cached_attention_list();
ImplementationList<ArgmaxArgs> argmax_list();
ImplementationList<CountUpArgs> count_up_list();
ImplementationList<SampleIdsArgs> sample_ids_list();
ImplementationList<RandomNormalArgs> random_normal_list();
// Throws UnsupportedError in a build without CUDA.
void require_built();
// The ops of `body` as a graph, not run; null where nothing can be recorded (the emulated device), and body is to be
// called each time.
std::shared_ptr<void> record(Context& ctx, const std::function<void()>& body);
void run_recorded(Context& ctx, const std::shared_ptr<void>& recorded);
void synchronize(Context& ctx);
// How many plans of cuBLASLt and cuDNN, and lists of ranges, the state has made since it was new.
std::int64_t plans_made(const CudaState& state);
// Of the context's GPU; null on the emulated device, whose work is done when the host's is.
std::unique_ptr<DeviceClock> make_clock(Context& ctx);
// An NVTX range of the calling thread begins; the last one that began ends.
void push_range(const char* name);
void pop_range();
}  // namespace cuda

// The oracle: one implementation an op, named "ref", for every dtype of the contract.
namespace ref {
ImplementationList<LinearArgs> linear_list();
ImplementationList<RmsNormArgs> rms_norm_list();
ImplementationList<RopeTablesArgs> rope_tables_list();
ImplementationList<RopeArgs> rope_list();
ImplementationList<AttentionArgs> attention_list();
ImplementationList<SwigluArgs> swiglu_list();
ImplementationList<EmbeddingArgs> embedding_list();
ImplementationList<LossHeadArgs> loss_head_list();
ImplementationList<LinearInputGradArgs> linear_input_grad_list();
ImplementationList<LinearWeightGradArgs> linear_weight_grad_list();
ImplementationList<BiasGradArgs> bias_grad_list();
ImplementationList<RmsNormInputGradArgs> rms_norm_input_grad_list();
ImplementationList<RmsNormWeightGradArgs> rms_norm_weight_grad_list();
ImplementationList<AttentionGradArgs> attention_grad_list();
ImplementationList<SwigluGradArgs> swiglu_grad_list();
ImplementationList<EmbeddingWeightGradArgs> embedding_weight_grad_list();
ImplementationList<LossHeadGradArgs> loss_head_grad_list();
ImplementationList<AddArgs> add_list();
ImplementationList<ConvertArgs> convert_list();
ImplementationList<ZeroArgs> zero_list();
ImplementationList<AdamWArgs> adamw_list();
ImplementationList<SumOfSquaresArgs> sum_of_squares_list();
ImplementationList<DecideStepArgs> decide_step_list();
ImplementationList<AddSumArgs> add_sum_list();
ImplementationList<SumWordsArgs> sum_words_list();
}  // namespace ref

// What a gradient without terms is: zeros when storing, and nothing to do when adding.
void zero_when_storing(Context& ctx, const Tensor& gradient, Accumulate accumulate);

// dispatch() over the backends' lists, the ref list at the end.
template <typename Args>
void dispatch_all(Context& ctx, const char* op, ImplementationList<Args> cpu_list, ImplementationList<Args> cuda_list,
                  ImplementationList<Args> ref_list, const Args& args) {
  std::vector<Implementation<Args>> all(cpu_list.begin(), cpu_list.end());
  all.insert(all.end(), cuda_list.begin(), cuda_list.end());
  all.insert(all.end(), ref_list.begin(), ref_list.end());
  dispatch<Args>(ctx, op, all, args);
}

}  // namespace caravan::ops

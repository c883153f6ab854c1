// The CUDA backend of a build without CUDA: it offers nothing.
#include "caravan/base/error.h"
#include "caravan/ops/args.h"
#include "caravan/ops/trace.h"

namespace caravan::ops::cuda {

ImplementationList<LinearArgs> linear_list() {
  return {};
}

ImplementationList<RmsNormArgs> rms_norm_list() {
  return {};
}

ImplementationList<RopeTablesArgs> rope_tables_list() {
  return {};
}

ImplementationList<RopeArgs> rope_list() {
  return {};
}

ImplementationList<AttentionArgs> attention_list() {
  return {};
}

ImplementationList<SwigluArgs> swiglu_list() {
  return {};
}

ImplementationList<EmbeddingArgs> embedding_list() {
  return {};
}

ImplementationList<LossHeadArgs> loss_head_list() {
  return {};
}

ImplementationList<LinearInputGradArgs> linear_input_grad_list() {
  return {};
}

ImplementationList<LinearWeightGradArgs> linear_weight_grad_list() {
  return {};
}

ImplementationList<BiasGradArgs> bias_grad_list() {
  return {};
}

ImplementationList<RmsNormInputGradArgs> rms_norm_input_grad_list() {
  return {};
}

ImplementationList<RmsNormWeightGradArgs> rms_norm_weight_grad_list() {
  return {};
}

ImplementationList<AttentionGradArgs> attention_grad_list() {
  return {};
}

ImplementationList<SwigluGradArgs> swiglu_grad_list() {
  return {};
}

ImplementationList<EmbeddingWeightGradArgs> embedding_weight_grad_list() {
  return {};
}

ImplementationList<LossHeadGradArgs> loss_head_grad_list() {
  return {};
}

ImplementationList<AddArgs> add_list() {
  return {};
}

ImplementationList<ConvertArgs> convert_list() {
  return {};
}

ImplementationList<ZeroArgs> zero_list() {
  return {};
}

ImplementationList<AdamWArgs> adamw_list() {
  return {};
}

ImplementationList<SumOfSquaresArgs> sum_of_squares_list() {
  return {};
}

ImplementationList<DecideStepArgs> decide_step_list() {
  return {};
}

ImplementationList<AddSumArgs> add_sum_list() {
  return {};
}

ImplementationList<SumWordsArgs> sum_words_list() {
  return {};
}

ImplementationList<AppendRowsArgs> append_rows_list() {
  return {};
}

ImplementationList<CachedAttentionArgs> cached_attention_list() {
  return {};
}

ImplementationList<ArgmaxArgs> argmax_list() {
  return {};
}

ImplementationList<CountUpArgs> count_up_list() {
  return {};
}

ImplementationList<SampleIdsArgs> sample_ids_list() {
  return {};
}

ImplementationList<RandomNormalArgs> random_normal_list() {
  return {};
}

std::shared_ptr<void> record(Context& /*ctx*/, const std::function<void()>& /*body*/) {
  return nullptr;
}

void run_recorded(Context& /*ctx*/, const std::shared_ptr<void>& /*recorded*/) {}

void require_built() {
  throw UnsupportedError(
      "this caravan was built without CUDA; build it with `make build CUDA=1`, or run with --device cpu");
}

void synchronize(Context& /*ctx*/) {}

std::int64_t plans_made(const CudaState& /*state*/) {
  return 0;
}

std::unique_ptr<DeviceClock> make_clock(Context& /*ctx*/) {
  return nullptr;
}

void push_range(const char* /*name*/) {}

void pop_range() {}

}  // namespace caravan::ops::cuda

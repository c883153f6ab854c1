// Long training: memory stays where it is and the loss falls.
#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "caravan/model/presets.h"
#include "caravan/optim/lr_schedule.h"
#include "caravan/optim/optimizer.h"
#include "caravan/tensor/copy.h"

namespace caravan::optim {
namespace {

TEST(TrainingRun, TenThousandStepsKeepMemoryFlat) {
  model::LlamaConfig config = model::preset("tiny");
  config.vocab_size = 31;
  config.hidden_size = 16;
  config.head_dim = 4;
  config.intermediate_size = 24;
  ops::Context ops = ops::make_context({.backend = ops::Backend::kCpu, .dry_run = false, .threads = 1});
  const auto store = autograd::WeightStore::for_training(ops, model::parameter_specs(config), DType::kF32);
  autograd::initialize(ops, *store, 3);
  store->allocate_gradients(ops, 4096);
  const model::Llama llama(config, *store);
  Optimizer optimizer(ops, *store, {.lr = 3e-3});
  const SequenceLayout layout = pack(std::vector<std::int64_t>{9, 7});
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> targets;
  for (std::int32_t i = 0; i < 16; ++i) {
    ids.push_back((i * i + 3) % 31);
    targets.push_back(i == 8 || i == 15 ? ops::kIgnoredTarget : ((i + 1) * (i + 1) + 3) % 31);
  }
  const auto upload = [&](const std::vector<std::int32_t>& values) {
    const Tensor tensor = ops.allocate(DType::kI32, {16});
    copy_from_host(tensor, std::as_bytes(std::span(values)));
    return tensor;
  };
  constexpr std::int64_t kSteps = 10'000;
  const LrSchedule schedule{.total_steps = kSteps, .warmup_steps = 100};
  double first_loss = 0.0;
  double loss = 0.0;
  MemoryUse warm;  // in the middle of a step, as `end` is
  MemoryUse end;
  std::int64_t plans = 0;
  for (std::int64_t step = 0; step < kSteps; ++step) {
    store->zero_gradients(ops);
    autograd::Tape tape(ops);
    autograd::Context pass(ops, layout);
    pass.tape = &tape;
    const autograd::Value hidden = llama.forward(pass, upload(ids));
    const autograd::Value losses = llama.token_losses(pass, hidden, upload(targets), 1.0 / 14.0);
    tape.backward(pass, {0, llama.units()});
    const double norm = std::sqrt(squared_gradient_norm(ops, *store));
    optimizer.step(ops, lr_factor(schedule, step), ops::clip_coefficient(norm, 1.0));
    loss = 0.0;
    for (const double one : to_doubles(losses.tensor)) {
      loss += one / 14.0;
    }
    first_loss = step == 0 ? loss : first_loss;
    if (step == 10) {
      ops.allocator->reset_peaks();
      plans = ops::plans_made(ops);
    }
    if (step == 20) {
      warm = ops.allocator->use();
    }
    if (step + 1 == kSteps) {
      end = ops.allocator->use();
    }
  }
  EXPECT_EQ(end.peak_bytes, warm.peak_bytes);
  EXPECT_EQ(end.high_water, warm.high_water);
  EXPECT_EQ(end.live_bytes, warm.live_bytes);
  EXPECT_EQ(ops::plans_made(ops), plans) << "plans are made once";
  EXPECT_GT(first_loss, 2.0);
  EXPECT_LT(loss, 0.05) << "sixteen tokens are soon known by heart";
}

}  // namespace
}  // namespace caravan::optim

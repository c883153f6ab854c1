// Layout never changes the mathematics: every division of the work over ranks gives the single process's gradients in
// f64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "caravan/base/error.h"
#include "caravan/model/presets.h"
#include "caravan/ops/elementwise.h"
#include "caravan/optim/optimizer.h"
#include "caravan/parallel/data_parallel.h"
#include "caravan/parallel/executor.h"
#include "caravan/tensor/copy.h"

namespace caravan::parallel {
namespace {

constexpr double kTolerance = 1e-11;  // f64 sums in another order
constexpr int kMicroBatches = 4;

using Gradients = std::map<std::string, std::vector<double>>;

model::LlamaConfig config_of(bool tied) {
  model::LlamaConfig config = model::preset("tiny");
  config.initializer_range = 0.3;
  config.num_hidden_layers = 3;
  config.attention_bias = true;
  config.tie_word_embeddings = tied;
  return config;
}

// Micro-batches of unlike lengths and unlike numbers of valid targets.
std::vector<MicroBatch> batches_of(int data_rank) {
  std::vector<MicroBatch> batches;
  for (int m = 0; m < kMicroBatches; ++m) {
    const std::vector<std::int64_t> lengths = {7 + 3 * data_rank + m, 1 + 5 * m};
    MicroBatch batch{pack(lengths), {}, {}};
    for (const std::int64_t length : lengths) {
      for (std::int64_t i = 0; i < length; ++i) {
        const auto salt = static_cast<std::int64_t>(17 * data_rank + 5 * m);
        batch.ids.push_back(static_cast<std::int32_t>((i * i + 37 * i + salt) % 131));
        const bool counts = i + 1 < length && (i + salt) % (2 + data_rank) != 0;
        batch.targets.push_back(counts ? static_cast<std::int32_t>((53 * i + salt) % 131) : ops::kIgnoredTarget);
      }
    }
    batches.push_back(std::move(batch));
  }
  return batches;
}

// How the work is divided, and which reduction is left out on purpose.
struct Plan {
  int data_ranks = 1;
  int stages = 1;
  Schedule (*schedule)(int stages, int micro_batches) = nullptr;
  bool tied = true;
  bool drop_data_reduction = false;
  bool drop_tied_reduction = false;
  autograd::SavePolicy checkpointing = {};
};

struct Outcome {
  Gradients gradients;        // by Hugging Face name, of data rank 0
  double squared_norm = 0.0;  // over the stages of data rank 0
  double loss = 0.0;
  std::vector<std::vector<comm::LedgerEntry>> data_ledgers;  // of stage 0, by data rank
};

std::int64_t all_targets(int data_ranks) {
  std::int64_t count = 0;
  for (int rank = 0; rank < data_ranks; ++rank) {
    count += valid_targets(batches_of(rank));
  }
  return count;
}

// The sum of the losses, which a stage adds to one of its own.
double run(ops::Context& ctx, const model::Llama& llama, const Schedule& schedule,
           const std::vector<MicroBatch>& batches, comm::Communicator& pipeline, const ExecutorOptions& options) {
  const Tensor loss_sum = ctx.allocate(DType::kF64, {1});
  ops::zero(ctx, loss_sum);
  run_schedule(ctx, llama, schedule, place(ctx, batches), pipeline, loss_sum, options);
  return to_doubles(loss_sum).front();
}

// One rank's share of the step.
void run_rank(const Plan& plan, comm::Communicator& world, Outcome& outcome, std::mutex& mutex) {
  const int data_rank = world.rank() / plan.stages;
  const int stage = world.rank() % plan.stages;
  const auto pipeline = world.split(data_rank);
  const auto data = world.split(stage);
  const model::LlamaConfig config = config_of(plan.tied);
  const autograd::UnitRange units = stage_units(static_cast<int>(config.num_hidden_layers) + 2, stage, plan.stages);
  ops::Context ctx = ops::make_context(
      {.backend = ops::Backend::kRef, .dry_run = false, .threads = 1, .memory_capacity = std::int64_t{1} << 28});
  const auto store = autograd::WeightStore::for_training(ctx, model::stage_specs(config, units), DType::kF64);
  autograd::initialize(ctx, *store, 11);
  store->allocate_gradients(ctx, 20'000);
  const model::Llama llama(config, *store, units);

  const std::vector<MicroBatch> batches = batches_of(data_rank);
  const std::int64_t valid = count_over_ranks(ctx, *data, valid_targets(batches));
  GradientReducer reducer(*store, *data);
  ExecutorOptions options;
  options.loss_scale = 1.0 / static_cast<double>(valid);
  options.checkpointing = plan.checkpointing;
  if (!plan.drop_data_reduction) {
    options.on_unit_done = [&](int unit) { reducer.unit_done(unit); };
  }
  const Schedule schedule =
      plan.schedule == nullptr ? accumulate(kMicroBatches) : plan.schedule(plan.stages, kMicroBatches);
  const double loss = run(ctx, llama, schedule, batches, *pipeline, options) * options.loss_scale;
  if (!plan.drop_data_reduction) {
    reducer.finish();
  }
  if (!plan.drop_tied_reduction) {
    sum_tied_gradients(ctx, *store, config, *pipeline);
  }

  const std::lock_guard lock(mutex);
  outcome.loss += loss;
  if (stage == 0) {
    outcome.data_ledgers[static_cast<std::size_t>(data_rank)] = data->ledger();
  }
  if (data_rank != 0) {
    return;
  }
  outcome.squared_norm += optim::squared_gradient_norm(ctx, *store);
  for (const autograd::Parameter& parameter : store->parameters()) {
    for (const ParamPart& part : parameter.spec.parts) {
      // A tied head's own copy has the embedding's name: both stages must hold the whole sum.
      const std::vector<double> values = to_doubles(autograd::part_rows(parameter.gradient, part));
      const auto [found, is_new] = outcome.gradients.emplace(part.name, values);
      if (!is_new && found->second != values) {
        found->second.assign(values.size(), std::nan(""));
      }
    }
  }
}

Outcome run(const Plan& plan) {
  Outcome outcome;
  outcome.data_ledgers.resize(static_cast<std::size_t>(plan.data_ranks));
  std::mutex mutex;
  comm::run_threads(plan.data_ranks * plan.stages,
                    [&](comm::Communicator& world) { run_rank(plan, world, outcome, mutex); });
  return outcome;
}

// The same tokens in one process: every data rank's micro-batches one after the other.
Outcome run_alone(int data_ranks, bool tied) {
  Outcome outcome;
  const model::LlamaConfig config = config_of(tied);
  ops::Context ctx = ops::make_context(
      {.backend = ops::Backend::kRef, .dry_run = false, .threads = 1, .memory_capacity = std::int64_t{1} << 28});
  const auto store = autograd::WeightStore::for_training(ctx, model::parameter_specs(config), DType::kF64);
  autograd::initialize(ctx, *store, 11);
  store->allocate_gradients(ctx);
  const model::Llama llama(config, *store);
  const auto self = comm::make_self();
  ExecutorOptions options;
  options.loss_scale = 1.0 / static_cast<double>(all_targets(data_ranks));
  for (int rank = 0; rank < data_ranks; ++rank) {
    outcome.loss += run(ctx, llama, accumulate(kMicroBatches), batches_of(rank), *self, options) * options.loss_scale;
  }
  outcome.squared_norm = optim::squared_gradient_norm(ctx, *store);
  for (const autograd::Parameter& parameter : store->parameters()) {
    for (const ParamPart& part : parameter.spec.parts) {
      outcome.gradients[part.name] = to_doubles(autograd::part_rows(parameter.gradient, part));
    }
  }
  return outcome;
}

double distance(const Gradients& a, const Gradients& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0.0;
  for (const auto& [name, values] : a) {
    double scale = 0.0;
    double error = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      scale = std::max(scale, std::abs(values[i]));
      const double gap = std::abs(values[i] - b.at(name)[i]);
      error = std::isnan(gap) ? 1e300 : std::max(error, gap);
    }
    EXPECT_GT(scale, 0.0) << name;
    worst = std::max(worst, error / scale);
  }
  return worst;
}

void expect_equivalent(const Plan& plan) {
  const Outcome alone = run_alone(plan.data_ranks, plan.tied);
  const Outcome divided = run(plan);
  EXPECT_LE(distance(alone.gradients, divided.gradients), kTolerance);
  EXPECT_NEAR(alone.loss, divided.loss, kTolerance * alone.loss);
  EXPECT_NEAR(alone.squared_norm, divided.squared_norm, kTolerance * alone.squared_norm);
  for (const auto& ledger : divided.data_ledgers) {
    EXPECT_EQ(ledger, divided.data_ledgers.front());
    EXPECT_FALSE(ledger.empty());
  }
}

TEST(Equivalence, DataParallelRanksWithUnlikeTokens) {
  for (const int ranks : {1, 2, 3, 4}) {
    expect_equivalent({.data_ranks = ranks});
  }
}

TEST(Equivalence, TwoStagesUnderEverySchedule) {
  for (const auto schedule : {gpipe, one_forward_one_backward, zero_bubble_h1}) {
    for (const bool tied : {true, false}) {
      expect_equivalent({.stages = 2, .schedule = schedule, .tied = tied});
    }
  }
}

TEST(Equivalence, FiveStagesOfOneUnitEach) {
  expect_equivalent({.stages = 5, .schedule = one_forward_one_backward});
}

TEST(Equivalence, DataAndPipelineTogether) {
  expect_equivalent({.data_ranks = 2, .stages = 2, .schedule = one_forward_one_backward});
  expect_equivalent({.data_ranks = 3, .stages = 2, .schedule = zero_bubble_h1});
}

TEST(Equivalence, CheckpointedSegmentsInsideAPipeline) {
  expect_equivalent({.data_ranks = 2,
                     .stages = 2,
                     .schedule = one_forward_one_backward,
                     .checkpointing = {autograd::CheckpointMode::kFull}});
  expect_equivalent({.stages = 2, .schedule = zero_bubble_h1, .checkpointing = {autograd::CheckpointMode::kSelective}});
}

// Without one of its reductions the same comparison is far off: the tests above can fail.
TEST(Equivalence, ADroppedReductionIsSeen) {
  const Plan no_data{.data_ranks = 2, .drop_data_reduction = true};
  EXPECT_GT(distance(run_alone(2, true).gradients, run(no_data).gradients), 1e-2);
  const Plan no_tie{.stages = 2, .schedule = gpipe, .drop_tied_reduction = true};
  EXPECT_GT(distance(run_alone(1, true).gradients, run(no_tie).gradients), 1e-2);
}

TEST(Equivalence, TheSameRunTwiceGivesTheSameBits) {
  const Plan plan{.data_ranks = 2, .stages = 2, .schedule = zero_bubble_h1};
  EXPECT_EQ(run(plan).gradients, run(plan).gradients);
}

TEST(Equivalence, ARankThatThrowsEndsTheJobWithItsSentence) {
  const model::LlamaConfig config = config_of(true);
  std::string message;
  try {
    comm::run_threads(2, [&](comm::Communicator& pipeline) {
      const autograd::UnitRange units = stage_units(5, pipeline.rank(), 2);
      ops::Context ctx = ops::make_context(
          {.backend = ops::Backend::kRef, .dry_run = false, .threads = 1, .memory_capacity = std::int64_t{1} << 28});
      const auto store = autograd::WeightStore::for_training(ctx, model::stage_specs(config, units), DType::kF64);
      autograd::initialize(ctx, *store, 11);
      store->allocate_gradients(ctx);
      const model::Llama llama(config, *store, units);
      std::vector<MicroBatch> batches = batches_of(0);
      if (pipeline.rank() == 1) {
        batches[2].targets[0] = 100'000;  // outside the vocabulary: the last stage refuses it in the middle
      }
      run(ctx, llama, one_forward_one_backward(2, kMicroBatches), batches, pipeline, {});
    });
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("100000"), std::string::npos) << message;
}

TEST(RunSchedule, RefusesWhatDoesNotFit) {
  const model::LlamaConfig config = config_of(true);
  ops::Context ctx = ops::make_context(
      {.backend = ops::Backend::kRef, .dry_run = false, .threads = 1, .memory_capacity = std::int64_t{1} << 28});
  const auto store = autograd::WeightStore::for_training(ctx, model::parameter_specs(config), DType::kF64);
  const model::Llama llama(config, *store);
  const auto self = comm::make_self();
  EXPECT_THROW(run(ctx, llama, accumulate(3), batches_of(0), *self, {}), ConfigError);
  EXPECT_THROW(run(ctx, llama, gpipe(2, kMicroBatches), batches_of(0), *self, {}), ConfigError);
  std::string message;
  try {
    comm::run_threads(6, [&](comm::Communicator& pipeline) {
      run(ctx, llama, gpipe(6, kMicroBatches), batches_of(0), pipeline, {});
    });
  } catch (const ConfigError& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("fewer stages"), std::string::npos) << message;
}

}  // namespace
}  // namespace caravan::parallel

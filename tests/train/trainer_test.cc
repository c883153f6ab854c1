// The training step: ranks, plans, numbers that are none, and going on from a checkpoint.
#include "caravan/train/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <span>

#include "caravan/base/error.h"
#include "caravan/data/loader.h"
#include "caravan/model/presets.h"
#include "caravan/tensor/copy.h"
#include "caravan/train/plan.h"
#include "caravan/train/resume.h"
#include "tests/support/device.h"
#include "tests/support/scratch.h"

namespace caravan::train {
namespace {

constexpr std::int64_t kSeqLen = 24;

model_io::HfConfig tiny_config(bool tied = true) {
  model_io::HfConfig config;
  config.model = model::preset("tiny");
  config.model.initializer_range = 0.3;
  config.model.tie_word_embeddings = tied;
  return config;
}

// Documents of unlike lengths over the vocabulary of the tiny model.
data::Documents documents() {
  std::vector<std::vector<std::int32_t>> result;
  for (int i = 0; i < 40; ++i) {
    std::vector<std::int32_t> document(static_cast<std::size_t>(5 + (i * 7) % 31));
    for (std::size_t j = 0; j < document.size(); ++j) {
      document[j] = static_cast<std::int32_t>((j * j + 13 * j + static_cast<std::size_t>(17 * i)) % 131);
    }
    result.push_back(document);
  }
  return data::Documents::of(result);
}

data::RowOptions row_options() {
  data::RowOptions options;
  options.seq_len = kSeqLen;
  options.shuffle = true;
  return options;
}

TrainerOptions options_of(std::int64_t steps) {
  TrainerOptions options;
  options.optimizer.lr = 1e-2;
  options.schedule.total_steps = steps;
  options.schedule.warmup_steps = 2;
  return options;
}

ops::Context context(ops::Backend backend = test::fast_backend()) {
  return ops::make_context(
      {.backend = backend, .dry_run = false, .threads = 1, .memory_capacity = std::int64_t{1} << 28});
}

// Three steps of four rows each, shared out over `size` ranks; the results of rank 0.
std::vector<StepResult> train_on_ranks(int size) {
  std::vector<StepResult> results;
  std::mutex mutex;
  comm::run_threads(size, [&](comm::Communicator& ranks) {
    ops::Context ctx = context(ops::Backend::kRef);
    Trainer trainer(ctx, model_io::create_model(ctx, tiny_config(), DType::kF64, 5, /*training=*/true), options_of(10),
                    ranks);
    const data::Rows rows({documents()}, row_options());
    data::LoaderOptions loading;
    loading.micro_batches = 4 / size;
    loading.rank = ranks.rank();
    loading.ranks = size;
    data::Loader loader(rows, loading);
    for (int step = 0; step < 3; ++step) {
      const StepResult result = trainer.step(loader.next().micro_batches);
      const std::lock_guard lock(mutex);
      if (ranks.rank() == 0) {
        results.push_back(result);
      }
    }
  });
  return results;
}

TEST(Trainer, SharesTheRowsOfAStepOverRanks) {
  const std::vector<StepResult> one = train_on_ranks(1);
  // Sums in another order in f64; AdamW divides by the root of squares, which keeps relative errors as they are.
  constexpr double kTolerance = 1e-10;
  for (const int size : {2, 4}) {
    const std::vector<StepResult> several = train_on_ranks(size);
    for (std::size_t step = 0; step < one.size(); ++step) {
      EXPECT_NEAR(several[step].loss, one[step].loss, kTolerance * one[step].loss) << size << " ranks, step " << step;
      EXPECT_NEAR(several[step].grad_norm, one[step].grad_norm, kTolerance * one[step].grad_norm);
      EXPECT_EQ(several[step].targets, one[step].targets);
      EXPECT_EQ(several[step].tokens, one[step].tokens);
    }
  }
}

class TrainerRun {
 public:
  explicit TrainerRun(DType dtype = DType::kF32, const TrainerOptions& options = options_of(10), bool tied = true)
      : ctx(context()),
        ranks(comm::make_self()),
        trainer(ctx, model_io::create_model(ctx, tiny_config(tied), dtype, 5, /*training=*/true), options, *ranks),
        rows({documents()}, row_options()) {}

  std::vector<MicroBatch> batch(std::int64_t step, std::int64_t micro_batches = 2) {
    data::LoaderOptions loading;
    loading.micro_batch_rows = 2;
    loading.micro_batches = micro_batches;
    loading.next_row = step * 2 * micro_batches;
    loading.prefetch = 0;
    return data::Loader(rows, loading).next().micro_batches;
  }

  // All bytes that a checkpoint would hold.
  std::vector<std::vector<double>> everything() const {
    std::vector<std::vector<double>> result;
    for (const checkpoint::NamedTensor& one : trainer.tensors()) {
      result.push_back(to_doubles(one.tensor));
    }
    return result;
  }

  ops::Context ctx;
  std::unique_ptr<comm::Communicator> ranks;
  Trainer trainer;
  data::Rows rows;
};

TEST(Trainer, GoesOnFromACheckpointToTheBit) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    TrainerOptions options = options_of(10);
    options.loss_scaler = {.scale = 1024.0, .growth_interval = 2};
    TrainerRun undisturbed(dtype, options);
    for (int step = 0; step < 6; ++step) {
      undisturbed.trainer.step(undisturbed.batch(step));
    }
    const test::ScratchDirectory scratch;
    checkpoint::CheckpointStore store({scratch.path() / "checkpoint", 0});
    store.prepare();
    TrainerRun first(dtype, options);
    for (int step = 0; step < 3; ++step) {
      first.trainer.step(first.batch(step));
    }
    TrainState state;
    state.step = first.trainer.steps();
    state.optimizer_steps = first.trainer.optimizer_steps();
    state.schedule_steps = first.trainer.schedule_steps();
    state.n_tokens_seen = first.trainer.tokens_seen();
    state.next_row = 12;
    state.loss_scaler = first.trainer.loss_scaler();
    state.machine = machine_of(first.ctx, dtype);
    store.save(3, first.trainer.tensors(), to_json(state));

    TrainerRun second(dtype, options);
    std::vector<std::string> warnings;
    const auto reader = checkpoint::open_newest(scratch.path() / "checkpoint", warnings);
    ASSERT_TRUE(reader.has_value());
    const TrainState loaded = load_into(second.trainer, *reader, {});
    EXPECT_EQ(loaded.next_row, 12);
    for (int step = 3; step < 6; ++step) {
      second.trainer.step(second.batch(step));
    }
    EXPECT_EQ(second.everything(), undisturbed.everything());
    EXPECT_EQ(second.trainer.loss_scaler().has_value(), dtype == DType::kF16);
    if (dtype == DType::kF16) {
      EXPECT_EQ(second.trainer.loss_scaler()->scale, 8192.0) << "doubled by every second step";
    }
    EXPECT_EQ(second.trainer.tokens_seen(), undisturbed.trainer.tokens_seen());
  }
}

TEST(Trainer, RefusesACheckpointOfAnotherModel) {
  const test::ScratchDirectory scratch;
  checkpoint::CheckpointStore store({scratch.path(), 0});
  store.prepare();
  TrainerRun first;
  store.save(0, first.trainer.tensors(), to_json(TrainState{}));
  model_io::HfConfig wider = tiny_config();
  wider.model.intermediate_size = 96;
  Trainer other(first.ctx, model_io::create_model(first.ctx, wider, DType::kF32, 5, true), options_of(10),
                *first.ranks);
  const auto reader = checkpoint::CheckpointReader::open(checkpoint::step_directory(scratch.path(), 0));
  const std::string message = test::message_of<ConfigError>([&] { load_into(other, reader, {}); });
  EXPECT_NE(message.find("of another model"), std::string::npos) << message;
  EXPECT_NE(message.find("[88, 32], here it is [96, 32]"), std::string::npos) << message;
}

void poison(const Trainer& trainer) {
  const Tensor tensor = trainer.tensors().front().tensor;
  std::vector<float> values = to_floats(tensor);
  std::fill(values.begin(), values.end(), std::numeric_limits<float>::quiet_NaN());
  copy_from_host(tensor, std::as_bytes(std::span(values)));
}

TEST(Trainer, StopsAtALossThatIsNoNumberAndChangesNothing) {
  TrainerRun run;
  run.trainer.step(run.batch(0));
  poison(run.trainer);
  const auto moments = to_doubles(run.trainer.tensors().back().tensor);
  EXPECT_THROW(run.trainer.step(run.batch(1)), NonFiniteError);
  EXPECT_EQ(run.trainer.steps(), 1);
  EXPECT_EQ(run.trainer.optimizer_steps(), 1);
  EXPECT_EQ(to_doubles(run.trainer.tensors().back().tensor), moments);
}

TEST(Trainer, SkipsALossThatIsNoNumberWhereAskedTo) {
  TrainerOptions options = options_of(10);
  options.skip_non_finite = true;
  TrainerRun run(DType::kF32, options);
  poison(run.trainer);
  const StepResult result = run.trainer.step(run.batch(0));
  EXPECT_FALSE(result.applied);
  EXPECT_EQ(run.trainer.steps(), 1);
  EXPECT_EQ(run.trainer.optimizer_steps(), 0);
  for (const double moment : to_doubles(run.trainer.tensors().back().tensor)) {
    EXPECT_EQ(moment, 0.0);
  }
}

TEST(Trainer, Float16FollowsFloat32) {
  TrainerRun wide(DType::kF32);
  TrainerRun half(DType::kF16);
  for (int step = 0; step < 8; ++step) {
    const StepResult a = wide.trainer.step(wide.batch(step));
    const StepResult b = half.trainer.step(half.batch(step));
    ASSERT_TRUE(b.applied);
    EXPECT_EQ(a.loss_scale, 1.0);
    EXPECT_EQ(b.loss_scale, 65536.0);
    // Each of some thirty roundings to 11 bits that a logit goes through moves it by up to 2^-12 of the largest
    // activation; the steps before add their own.
    constexpr double kTolerance = 30.0 / 4096;
    EXPECT_NEAR(b.loss, a.loss, kTolerance * a.loss) << step;
    EXPECT_NEAR(b.grad_norm, a.grad_norm, 5 * kTolerance * a.grad_norm) << step;
  }
}

TEST(Trainer, GradientsThatOverflowFloat16HalveTheScaleAndChangeNothing) {
  TrainerOptions options = options_of(10);
  options.loss_scaler.scale = 16777216.0;  // over some ninety targets beyond what float16 holds
  TrainerRun run(DType::kF16, options);
  const auto before = run.everything();
  const StepResult first = run.trainer.step(run.batch(0));
  EXPECT_FALSE(first.applied);
  EXPECT_TRUE(std::isfinite(first.loss));
  EXPECT_EQ(run.trainer.loss_scaler()->scale, 8388608.0);
  EXPECT_EQ(run.trainer.optimizer_steps(), 0);
  EXPECT_EQ(run.everything(), before);
  int skipped = 1;
  while (!run.trainer.step(run.batch(0)).applied) {
    ASSERT_LT(++skipped, 20);
  }
  EXPECT_EQ(run.trainer.optimizer_steps(), 1);
  EXPECT_NE(run.everything(), before);
}

// Every row predicts the next one, the last nothing.
std::vector<MicroBatch> sequence(const std::vector<std::int32_t>& ids) {
  std::vector<std::int32_t> targets(ids.begin() + 1, ids.end());
  targets.push_back(kIgnoredTarget);
  return {{pack(std::vector<std::int64_t>{static_cast<std::int64_t>(ids.size())}), ids, targets}};
}

// Even of numbers that equal nothing.
std::vector<std::vector<std::byte>> bytes_of_all(const Trainer& trainer) {
  std::vector<std::vector<std::byte>> result;
  for (const checkpoint::NamedTensor& one : trainer.tensors()) {
    copy_to_host(result.emplace_back(static_cast<std::size_t>(one.tensor.bytes())), one.tensor);
  }
  return result;
}

// A sequence, and another of one row of an id without numbers, which predicts nothing: no loss sees it and every gradient
// does.
std::vector<MicroBatch> sequence_of_lost_gradients(Trainer& trainer) {
  constexpr std::int32_t kLost = 7;
  autograd::Parameter& table = trainer.model().weights->at("model.embed_tokens.weight");
  std::vector<float> values = to_floats(table.master);
  const auto width = static_cast<std::size_t>(table.master.columns());
  std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(kLost * width), width,
              std::numeric_limits<float>::quiet_NaN());
  copy_from_host(table.master, std::as_bytes(std::span(values)));
  trainer.restored(0, 0, 0, 0);  // what products read follows
  std::vector<MicroBatch> batches = sequence({1, 2, 3, kLost});
  batches[0].layout = pack(std::vector<std::int64_t>{3, 1});
  batches[0].targets[2] = kIgnoredTarget;
  return batches;
}

TEST(Trainer, AScaleThatNothingFitsUnderIsAnError) {
  TrainerRun run(DType::kF16, options_of(10), /*tied=*/false);
  const std::vector<MicroBatch> batches = sequence_of_lost_gradients(run.trainer);
  const auto step = [&] { return run.trainer.step(batches); };
  for (double scale = 65536.0; scale > optim::LossScaler::kLeast; scale /= 2) {
    EXPECT_FALSE(step().applied);
  }
  const std::string message = test::message_of<NonFiniteError>(step);
  EXPECT_NE(message.find("at a loss scale of"), std::string::npos) << message;
}

TEST(Trainer, ALossThatIsNoNumberIsNotTakenForAnOverflow) {
  TrainerRun run(DType::kF16);
  poison(run.trainer);
  run.trainer.restored(0, 0, 0, 0);  // what products read follows
  const std::string message = test::message_of<NonFiniteError>([&] { run.trainer.step(run.batch(0)); });
  EXPECT_NE(message.find("step 1: the loss is nan"), std::string::npos) << message;
  EXPECT_EQ(run.trainer.steps(), 0);
}

TEST(Trainer, StepsBegunAheadAreTheStepsTakenOneByOne) {
  TrainerRun one_by_one;
  TrainerRun ahead;
  std::vector<StepResult> expected;
  std::vector<StepResult> found;
  for (int step = 0; step < 5; ++step) {
    expected.push_back(one_by_one.trainer.step(one_by_one.batch(step)));
    ahead.trainer.begin_step(ahead.batch(step));
    if (step > 0) {
      found.push_back(ahead.trainer.finish_step());
      EXPECT_EQ(ahead.trainer.under_way(), 1);
    }
  }
  found.push_back(ahead.trainer.finish_step());
  EXPECT_EQ(ahead.trainer.under_way(), 0);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].loss, expected[i].loss);
    EXPECT_EQ(found[i].grad_norm, expected[i].grad_norm);
    EXPECT_EQ(found[i].lr, expected[i].lr);
    EXPECT_EQ(found[i].tokens, expected[i].tokens);
  }
  EXPECT_EQ(ahead.everything(), one_by_one.everything());
  EXPECT_EQ(ahead.trainer.steps(), 5);
  EXPECT_EQ(ahead.trainer.optimizer_steps(), 5);
  EXPECT_EQ(ahead.trainer.tokens_seen(), one_by_one.trainer.tokens_seen());
}

TEST(Trainer, AfterALossThatIsNoNumberTheStepsBegunAheadChangeNothing) {
  TrainerRun run(DType::kF32, options_of(10), /*tied=*/false);
  const std::vector<MicroBatch> lost = sequence_of_lost_gradients(run.trainer);
  run.trainer.step(sequence({4, 5, 6}));
  const auto before = bytes_of_all(run.trainer);
  run.trainer.begin_step(lost);
  run.trainer.begin_step(sequence({8, 9, 10}));
  run.trainer.begin_step(sequence({11, 12, 13, 14}));
  const std::string message = test::message_of<NonFiniteError>([&] { run.trainer.finish_step(); });
  EXPECT_NE(message.find("step 2: "), std::string::npos) << message;
  EXPECT_EQ(bytes_of_all(run.trainer), before);
  EXPECT_EQ(run.trainer.under_way(), 0);
  EXPECT_EQ(run.trainer.steps(), 1);
  EXPECT_EQ(run.trainer.optimizer_steps(), 1);
  const StepResult next = run.trainer.step(sequence({8, 9, 10}));
  EXPECT_TRUE(next.applied) << "whoever goes on may";
  EXPECT_EQ(run.trainer.optimizer_steps(), 2);
}

TEST(Trainer, AStepSkippedAmongStepsBegunAheadLeavesTheOthers) {
  TrainerOptions options = options_of(10);
  options.skip_non_finite = true;
  TrainerRun ahead(DType::kF32, options, /*tied=*/false);
  TrainerRun one_by_one(DType::kF32, options, /*tied=*/false);
  std::vector<bool> applied;
  for (TrainerRun* run : {&ahead, &one_by_one}) {
    const std::vector<MicroBatch> lost = sequence_of_lost_gradients(run->trainer);
    const auto finish = [&] { applied.push_back(run->trainer.finish_step().applied); };
    run->trainer.begin_step(sequence({4, 5, 6}));
    if (run == &one_by_one) {
      finish();
    }
    run->trainer.begin_step(lost);
    finish();
    run->trainer.begin_step(sequence({8, 9, 10}));
    finish();
    if (run == &ahead) {
      finish();
    }
    EXPECT_EQ(run->trainer.steps(), 3);
    EXPECT_EQ(run->trainer.optimizer_steps(), 2);
  }
  EXPECT_EQ(applied, (std::vector<bool>{true, false, true, true, false, true}));
  EXPECT_EQ(bytes_of_all(ahead.trainer), bytes_of_all(one_by_one.trainer));
}

// Steps of one shape become a CUDA graph on a GPU; elsewhere this compares a run with itself.
class RepeatedSteps : public testing::TestWithParam<DType> {};

TEST_P(RepeatedSteps, AreTheStepsAskedForOneByOneToTheBit) {
  TrainerOptions options = options_of(10);
  options.loss_scaler = {.scale = 1024.0, .growth_interval = 3};
  TrainerRun recorded(GetParam(), options);
  TrainerRun asked(GetParam(), options);
  asked.ctx.record_graphs = false;
  Tensor in_the_way;
  std::int64_t dispatched = 0;
  recorded.ctx.on_choice = [&](const ops::Choice&) { ++dispatched; };
  for (int step = 0; step < 8; ++step) {
    const auto batches = [&] {
      std::vector<MicroBatch> result;
      for (int i = 0; i < 2; ++i) {
        std::vector<std::int32_t> ids;
        for (int j = 0; j < 9 + (step == 5 ? 3 : 0); ++j) {
          ids.push_back((17 * step + 5 * i + j * j) % 131);
        }
        result.push_back(sequence(ids).front());
      }
      return result;
    }();
    dispatched = 0;
    const StepResult a = recorded.trainer.step(batches);
    if (test::on_cuda() && (step == 2 || step == 4)) {
      EXPECT_EQ(dispatched, 0) << "step " << step << " should have been a recording";
    } else if (step != 1 && step != 3 && step != 7) {
      EXPECT_GT(dispatched, 0);
    }
    const StepResult b = asked.trainer.step(batches);
    EXPECT_EQ(a.loss, b.loss) << step;
    EXPECT_EQ(a.grad_norm, b.grad_norm) << step;
    EXPECT_EQ(a.loss_scale, b.loss_scale) << step;
    EXPECT_EQ(recorded.everything(), asked.everything()) << step;
    if (step == 2) {  // what an evaluation packs and keeps is not what later steps read
      recorded.trainer.evaluate(batches);
      asked.trainer.evaluate(batches);
    }
    if (step == 3) {
      in_the_way = recorded.ctx.allocate(DType::kU8, {1000});
    }
  }
  EXPECT_EQ(recorded.trainer.optimizer_steps(), 8);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, RepeatedSteps, testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                         [](const auto& info) { return std::string(to_string(info.param)); });

// What a recording reads may be pushed out of its caches by other shapes between steps.
TEST(Trainer, RepeatedStepsOutliveEvaluationsOfManyShapes) {
  TrainerRun recorded;
  TrainerRun asked;
  asked.ctx.record_graphs = false;
  for (int step = 0; step < 6; ++step) {
    for (TrainerRun* run : {&recorded, &asked}) {
      run->trainer.step(sequence({1 + step, 2, 3, 4, 5, 6 + step}));
      for (std::int32_t length = 2; (step == 0 || step == 3) && length < 24; ++length) {
        run->trainer.evaluate(sequence(std::vector<std::int32_t>(static_cast<std::size_t>(length), 3)));
      }
    }
    EXPECT_EQ(recorded.everything(), asked.everything()) << step;
  }
}

TEST(Trainer, ASkippedLossThatIsNoNumberLeavesTheLossScale) {
  TrainerOptions options = options_of(10);
  options.skip_non_finite = true;
  TrainerRun run(DType::kF16, options);
  poison(run.trainer);
  run.trainer.restored(0, 0, 0, 0);  // what products read follows
  EXPECT_FALSE(run.trainer.step(run.batch(0)).applied);
  EXPECT_EQ(run.trainer.loss_scaler()->scale, 65536.0);
}

TEST(Trainer, OfAModelInFloat16OneStepIsUnderWayAtATime) {
  TrainerRun run(DType::kF16);
  run.trainer.begin_step(run.batch(0));
  EXPECT_FALSE(run.trainer.may_begin());
  EXPECT_THROW(run.trainer.begin_step(run.batch(1)), Error);
  run.trainer.finish_step();
  EXPECT_TRUE(run.trainer.may_begin());
  EXPECT_THROW(run.trainer.finish_step(), Error);
}

TEST(Trainer, EvaluatesWhatAStepWouldReport) {
  TrainerRun run;
  const auto before = run.everything();
  const Evaluation evaluation = run.trainer.evaluate(run.batch(0));
  EXPECT_EQ(run.everything(), before);
  const StepResult result = run.trainer.step(run.batch(0));
  EXPECT_EQ(evaluation.targets, result.targets);
  // The same products in another kernel (with and without gradients), f32 sums of a few hundred terms.
  EXPECT_NEAR(evaluation.loss_sum / static_cast<double>(evaluation.targets), result.loss, 1e-5 * result.loss);
}

TEST(Trainer, MovesNothingOnABatchOfPadding) {
  TrainerRun run;
  std::vector<MicroBatch> batches = run.batch(0);
  for (MicroBatch& batch : batches) {
    batch.layout.sequences.clear();
    std::fill(batch.ids.begin(), batch.ids.end(), -1);
    std::fill(batch.targets.begin(), batch.targets.end(), kIgnoredTarget);
  }
  const auto before = run.everything();
  const StepResult result = run.trainer.step(batches);
  EXPECT_EQ(result.targets, 0);
  EXPECT_EQ(result.loss, 0.0);
  EXPECT_EQ(run.everything(), before);
}

TEST(Plan, PredictsThePeakToTheByte) {
  for (const char* mode : {"none", "selective", "full"}) {
    for (const char* compute : {"float32", "bfloat16", "float16"}) {
      Config config;
      config.training.device = test::on_cuda() ? "cuda" : "cpu";
      config.training.seq_len = kSeqLen;
      config.training.local_batch_size = 2;
      config.training.global_batch_size = 4;
      config.training.threads = 1;
      config.training.mixed_precision_param = compute;
      config.activation_checkpoint.mode = mode;
      TrainerOptions options = trainer_options(config, 10);
      TrainerRun run(compute_dtype(config, context()), options);
      run.ctx.allocator->reset_peaks();
      const std::vector<MicroBatch> batches = full_batches(config, 1);
      const MemoryPlan plan = plan_memory(config, tiny_config(), batches, {}, std::int64_t{1} << 30);
      run.trainer.step(batches);
      run.trainer.step(batches);
      const MemoryUse used = run.ctx.allocator->use();
      EXPECT_EQ(plan.use.peak_bytes, used.peak_bytes) << mode << " " << compute;
      EXPECT_EQ(plan.use.high_water, used.high_water) << mode << " " << compute;
      for (int segment = 0; segment < kSegmentCount; ++segment) {
        EXPECT_EQ(plan.use.segments[static_cast<std::size_t>(segment)].peak_bytes,
                  used.segments[static_cast<std::size_t>(segment)].peak_bytes)
            << mode << " " << compute << " " << to_string(static_cast<Segment>(segment));
      }
      EXPECT_TRUE(plan.fits());
    }
  }
}

TEST(Plan, NamesTheNearestSettingThatFits) {
  Config config;
  config.training.seq_len = 128;
  config.training.local_batch_size = 16;
  config.training.threads = 1;
  const std::int64_t all = plan_memory(config, tiny_config(), full_batches(config, 1), {}, 0).needed();
  // As much as the mildest recomputation needs: it is named, and no other.
  Config selective = config;
  selective.activation_checkpoint.mode = "selective";
  const std::int64_t less = plan_memory(selective, tiny_config(), full_batches(selective, 1), {}, 0).needed();
  ASSERT_LT(less, all);
  const auto nearest = suggest(config, tiny_config(), {}, less);
  ASSERT_TRUE(nearest.has_value());
  EXPECT_EQ(nearest->changes, std::vector<std::string>{"--activation_checkpoint.mode selective"});
  EXPECT_EQ(nearest->plan.needed(), less);
  const auto far = suggest(config, tiny_config(), {}, all / 2);
  ASSERT_TRUE(far.has_value());
  EXPECT_LE(far->plan.needed(), all / 2);
  EXPECT_FALSE(suggest(config, tiny_config(), {}, 1000).has_value());
}

TEST(FlopsPerToken, CountsWhatTheTapeCounts) {
  const model_io::HfConfig config = tiny_config();
  ops::Context ctx = context();
  const model_io::LoadedModel model = model_io::create_model(ctx, config, DType::kF32, 5, true);
  constexpr std::int64_t kLength = 256;
  const SequenceLayout layout = pack(std::vector<std::int64_t>{kLength});
  autograd::Context pass(ctx, layout);
  const std::vector<std::int32_t> ids(kLength, 3);
  const autograd::Value hidden = model.llama->forward(pass, to_device(*ctx.allocator, ids));
  model.llama->token_losses(pass, hidden, to_device(*ctx.allocator, ids));
  // A backward pass is two forwards; a causal row of n sees (n + 1) / 2 keys on average where the formula says n / 2.
  EXPECT_NEAR(flops_per_token(config.model, kLength), 3.0 * pass.flops / kLength,
              0.01 * flops_per_token(config.model, kLength));
}

}  // namespace
}  // namespace caravan::train

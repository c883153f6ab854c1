// The table of ops: every case runs, and together they are what a training step calls and counts.
#include "caravan/bench/cases.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "caravan/bench/bench.h"
#include "caravan/train/plan.h"
#include "caravan/train/setup.h"
#include "caravan/train/trainer.h"
#include "tests/bench/tiny_step.h"

namespace caravan::bench {
namespace {

ops::Context context() {
  return ops::make_context(
      {.backend = ops::Backend::kCpu, .dry_run = false, .threads = 2, .memory_capacity = std::int64_t{1} << 28});
}

// Whose "auto" is f32 on every machine.
ops::Context plain_context() {
  ops::Context ctx = context();
  ctx.isa = Isa::kAvx2;
  return ctx;
}

// Configurations that differ in what a step calls.
struct Variant {
  const char* name;
  DType dtype = DType::kF32;
  bool tied = false;
  bool biases = false;
};

class EveryVariant : public ::testing::TestWithParam<Variant> {
 protected:
  StepShape shape() const {
    train::Config config = test::tiny_step();
    config.model.tie_word_embeddings = GetParam().tied;
    StepShape result = step_shape(config, plain_context());
    result.model.attention_bias = GetParam().biases;
    result.model.mlp_bias = GetParam().biases;
    result.dtype = GetParam().dtype;
    return result;
  }
};

INSTANTIATE_TEST_SUITE_P(Cases, EveryVariant,
                         ::testing::Values(Variant{"f32"}, Variant{"bf16", DType::kBF16},
                                           Variant{"tied", DType::kF32, /*tied=*/true},
                                           Variant{"biases", DType::kBF16, false, /*biases=*/true}),
                         [](const auto& info) { return std::string(info.param.name); });

bool has_products(const std::string& name) {
  return name.starts_with("linear") || name.starts_with("loss_head") || name.starts_with("attention");
}

TEST_P(EveryVariant, RunsAndIsTimedAndCountsWhatItReads) {
  ops::Context ctx = context();
  std::set<std::string> names;
  for (const Case& one : step_cases(shape())) {
    SCOPED_TRACE(one.name);
    const CaseTime time = time_case(ctx, one, 1e-6);
    EXPECT_TRUE(names.insert(time.name).second) << "names tell cases apart";
    EXPECT_GE(time.repeats, 3);
    EXPECT_GT(time.best, 0.0);
    EXPECT_GE(time.median, time.best);
    EXPECT_GT(time.bytes, 0.0);
    EXPECT_EQ(time.flops > 0.0, has_products(time.name));
  }
  EXPECT_GE(names.size(), 29U);
}

// Multiplications and additions by hand.  Tokens of a step: 2 micro-batches x 3 rows x 20.  Weights: 2 layers of
// qkv 64 x 32, output 32 x 32, gate_up 96 x 32 and down 32 x 48; head 130 x 32.  Attention: two products forward and
// four backward over 20 x 21 / 2 visible pairs of each row, heads x head_dim = 32 wide.
TEST_P(EveryVariant, CountsTheOperationsOfAStepByHand) {
  ops::Context ctx = context();
  double flops = 0.0;
  for (const Case& one : step_cases(shape())) {
    flops += static_cast<double>(one.calls) * one.make(ctx).flops;
  }
  const double weights = 2.0 * (64 * 32 + 32 * 32 + 96 * 32 + 32 * 48) + 130 * 32;
  const double pairs = 2.0 * 3 * (20 * 21 / 2);
  EXPECT_DOUBLE_EQ(flops, 6.0 * weights * 120 + 2.0 * pairs * (2 + 4) * 2 * 32);
}

// The documented rule: but for one pair a row, on the diagonal, the table counts what mfu counts.
TEST_P(EveryVariant, CountsTheOperationsThatTrainingCounts) {
  ops::Context ctx = context();
  const StepShape s = shape();
  double flops = 0.0;
  for (const Case& one : step_cases(s)) {
    flops += static_cast<double>(one.calls) * one.make(ctx).flops;
  }
  const auto tokens = static_cast<double>(s.tokens() * s.micro_batches);
  const double attention_of_a_key = 6.0 * static_cast<double>(s.model.num_hidden_layers) *
                                    static_cast<double>(s.model.num_attention_heads * s.model.head_dim);
  EXPECT_DOUBLE_EQ(flops, tokens * (train::flops_per_token(s.model, s.seq_len) + attention_of_a_key));
}

// Dispatches by op while `call` runs.
template <typename Call>
std::map<std::string, std::int64_t> dispatches(ops::Context& ctx, const Call& call) {
  std::map<std::string, std::int64_t> counts;
  ctx.on_timed = [&](const ops::Timing& timing) { ++counts[timing.op]; };
  call();
  ctx.on_timed = nullptr;
  return counts;
}

// The table is complete: a step dispatches these ops, each as often as the cases say, and no others.
TEST_P(EveryVariant, AreTheCallsOfAStep) {
  const StepShape s = shape();
  std::map<std::string, std::int64_t> expected;
  for (const Case& one : step_cases(s)) {
    ops::Context ctx = context();
    const Work work = one.make(ctx);
    for (const auto& [op, count] : dispatches(ctx, work.call)) {
      EXPECT_TRUE(one.name.starts_with(op) || op == "zero") << one.name << " calls " << op;
      if (one.calls > 0) {
        expected[op] += count * one.calls;
      }
    }
  }

  ops::Context ctx = context();
  const auto ranks = comm::make_self();
  model_io::HfConfig architecture;
  architecture.model = s.model;
  train::TrainerOptions options;
  train::Trainer trainer(ctx, model_io::create_model(ctx, architecture, s.dtype, 1, /*training=*/true), options,
                         *ranks);
  train::Config config = test::tiny_step();
  const std::vector<MicroBatch> batches = train::full_batches(config, 1);
  EXPECT_EQ(dispatches(ctx, [&] { trainer.step(batches); }), expected);
}

TEST(ProductCases, AreThreeDirectionsOfEveryProductAndCutTheHead) {
  train::Config config = test::tiny_step();
  const StepShape s = step_shape(config, plain_context());
  ops::Context ctx = context();
  double flops = 0.0;
  std::set<std::string> names;
  for (const Case& one : product_cases(s)) {
    flops += static_cast<double>(one.calls) * one.make(ctx).flops;
    names.insert(one.name);
  }
  EXPECT_EQ(names.size(), 15U);
  const double weights = 2.0 * (64 * 32 + 32 * 32 + 96 * 32 + 32 * 48) + 130 * 32;
  EXPECT_DOUBLE_EQ(flops, 6.0 * weights * 120);

  // 10,000 tokens: three pieces of the head, which together have no fewer tokens and at most a few more.
  StepShape wide = s;
  wide.rows = 500;
  ops::Context dry = ops::make_context({.backend = ops::Backend::kCpu, .dry_run = true, .threads = 2});
  for (const Case& one : product_cases(wide)) {
    if (one.name == "linear head") {
      EXPECT_EQ(one.calls, 3 * wide.micro_batches);
      EXPECT_DOUBLE_EQ(one.make(dry).flops, 2.0 * 3334 * 32 * 130);
    }
  }
}

}  // namespace
}  // namespace caravan::bench

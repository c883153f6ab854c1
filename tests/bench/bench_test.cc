// The whole benchmark on a step of milliseconds: figures that hang together, keys that stay, one sentence for mistakes.
#include "caravan/bench/bench.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "caravan/base/error.h"
#include "caravan/bench/report.h"
#include "caravan/train/peak.h"
#include "tests/bench/tiny_step.h"
#include "tests/support/scratch.h"

namespace caravan::bench {
namespace {

Options quick(bool ops, bool step) {
  Options options;
  options.ops = ops;
  options.step = step;
  options.seconds = 1e-3;
  return options;
}

std::string refusal(const train::Config& config, const Options& options = quick(false, false)) {
  return caravan::test::message_of<Error>([&] { run_bench(config, options, {}); });
}

std::vector<std::string> keys_of(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) {
    keys.push_back(key);
  }
  return keys;
}

TEST(Bench, MeasuresTheMachine) {
  const Report report = run_bench(test::tiny_step(), quick(false, false), {});
  EXPECT_FALSE(report.machine.processor.empty());
  EXPECT_EQ(report.machine.threads, 2);
  EXPECT_EQ(report.machine.products.size(), 15U);
  // The peak lies between the slowest and the fastest of the products that it is made of.
  const auto rate = [](const CaseTime& time) { return time.flops / time.best; };
  const auto [slowest, fastest] = std::ranges::minmax(report.machine.products, {}, rate);
  EXPECT_GE(report.machine.product_peak, rate(slowest) * (1.0 - 1e-9));
  EXPECT_LE(report.machine.product_peak, rate(fastest) * (1.0 + 1e-9));
  EXPECT_GT(report.machine.square_peak, 0.0);
  EXPECT_GT(report.machine.read_bandwidth, 0.0);
  EXPECT_TRUE(report.ops.empty());
  EXPECT_FALSE(report.step.has_value());
}

TEST(Bench, MeasuresAStepThatMakesNoPlansAndTakesTheMemoryThatWasPlanned) {
  const Report report = run_bench(test::tiny_step(), quick(false, true), {});
  ASSERT_TRUE(report.step.has_value());
  const StepTime& step = *report.step;
  EXPECT_GE(step.steps, 3);
  EXPECT_EQ(step.tokens, 2 * 3 * 20);
  EXPECT_EQ(step.plans_made, 0);
  EXPECT_EQ(step.used.high_water, step.planned.use.high_water);
  EXPECT_GT(step.best, 0.0);
  EXPECT_GE(step.median, step.best);
  EXPECT_TRUE(std::isfinite(step.loss));
  // Ops take part of a step, never more than all of it.
  double inside = 0.0;
  std::int64_t products = 0;
  for (const OpTime& one : step.ops) {
    EXPECT_GT(one.calls, 0) << one.op;
    inside += one.prepare + one.run;
    products += one.op == "linear" ? one.calls : 0;
  }
  EXPECT_EQ(products, 2 * 2 * 4) << "micro-batches, layers, products of a block";
  EXPECT_GT(inside, 0.0);
  EXPECT_GE(step.elsewhere, 0.0);
  EXPECT_NEAR(inside + step.elsewhere, step.mean, 1e-9 * step.mean);
}

TEST(Bench, FiltersOpsByName) {
  Options options = quick(true, false);
  options.filter = "attention";
  const Report report = run_bench(test::tiny_step(), options, {});
  ASSERT_EQ(report.ops.size(), 2U);
  EXPECT_EQ(report.ops[0].name, "attention");
  EXPECT_EQ(report.ops[1].name, "attention_grad");
}

TEST(Bench, TellsTheReportLineByLine) {
  Options options = quick(true, true);
  options.filter = "swiglu";
  std::vector<std::string> lines;
  run_bench(test::tiny_step(), options, [&](const std::string& line) { lines.push_back(line); });
  const auto holds = [&](const std::string& text) {
    return std::ranges::any_of(lines, [&](const std::string& line) { return line.find(text) != std::string::npos; });
  };
  for (const char* text :
       {"product peak", "read bandwidth", "swiglu_grad", "whole step: ", "plans made", "elsewhere", "planned bytes"}) {
    EXPECT_TRUE(holds(text)) << text;
  }
  EXPECT_FALSE(holds("linear qkv")) << "the filter left it out";
}

TEST(BenchJson, HasTheKeysThatAreDocumented) {
  const Json json = to_json(run_bench(test::tiny_step(), quick(true, true), {}));
  using Keys = std::vector<std::string>;
  EXPECT_EQ(keys_of(json), (Keys{"machine", "model", "batch", "ops", "step"}));
  EXPECT_EQ(keys_of(json.at("machine")),
            (Keys{"processor", "device", "backend", "isa", "threads", "pinned", "dtype", "product_peak_gflops",
                  "square_peak_gflops", "read_bandwidth_gbs", "read_bytes", "products"}));
  EXPECT_EQ(keys_of(json.at("batch")), (Keys{"micro_batches", "rows", "seq_len", "tokens"}));
  const Keys case_keys = {"name",  "calls",  "repeats", "seconds",    "seconds_median", "flops",
                          "bytes", "gflops", "gbs",     "peak_share", "read_share"};
  EXPECT_EQ(keys_of(json.at("machine").at("products").at(0)), case_keys);
  EXPECT_EQ(keys_of(json.at("ops").at(0)), case_keys);
  const Json& step = json.at("step");
  EXPECT_EQ(keys_of(step), (Keys{"steps", "seconds", "seconds_median", "seconds_mean", "tokens_per_second",
                                 "tokens_per_second_best", "flops", "peak_share", "peak_share_best", "plans_made",
                                 "loss", "ops", "elsewhere_seconds", "memory_planned", "memory_used"}));
  // Rates, shares and flops belong together.
  EXPECT_NEAR(step.at("peak_share").get<double>() * step.at("seconds_median").get<double>() *
                  json.at("machine").at("product_peak_gflops").get<double>() * 1e9,
              step.at("flops").get<double>(), 1e-9 * step.at("flops").get<double>());
  EXPECT_NEAR(step.at("flops").get<double>(), json.at("model").at("flops_per_token").get<double>() * 120,
              1e-9 * step.at("flops").get<double>());
  EXPECT_EQ(step.at("memory_planned").at("high_water"), step.at("memory_used").at("high_water"));
}

TEST(Bench, RefusesWhatMakesNoSenseInOneSentence) {
  Options options = quick(true, false);
  options.seconds = 0.0;
  EXPECT_EQ(refusal(test::tiny_step(), options),
            "bench: 0 seconds a case were asked for; give a number above 0 and up to 3600");
  options = quick(true, false);
  options.filter = "gelu";
  EXPECT_TRUE(refusal(test::tiny_step(), options).starts_with("bench: no op's name holds \"gelu\"; there are zero, "));

  train::Config config = test::tiny_step();
  config.model.vocab_size.reset();
  EXPECT_EQ(refusal(config),
            "model.vocab_size is missing, and there is no tokenizer that tells it: give it, or name the tokenizer by "
            "model.hf_assets_path");
  config = test::tiny_step();
  config.model.max_position_embeddings = 16;
  EXPECT_EQ(refusal(config), "training.seq_len 20: a row of this model has at least 2 ids and at most 16");
  config = test::tiny_step();
  config.training.seq_len = 1;
  EXPECT_NE(refusal(config).find("at least 2 ids"), std::string::npos);
  config = test::tiny_step();
  config.model.hidden_size = 33;
  EXPECT_NE(refusal(config).find("hidden_size 33"), std::string::npos);
}

TEST(Bench, RefusesAStepThatDoesNotFit) {
  train::Config config = test::tiny_step();
  config.model.hidden_size = 32768;
  config.model.num_hidden_layers = 100;  // more than a trillion parameters
  EXPECT_TRUE(caravan::test::message_of<OutOfMemoryError>([&] {
                Options options = quick(false, true);
                run_bench(config, options, {});
              }).starts_with("a step of this training needs "));
}

TEST(ReadMeter, RemembersItsBestPass) {
  const ops::Context ctx = ops::make_context({.threads = 2, .memory_capacity = std::int64_t{1} << 20});
  train::ReadMeter meter(ctx);
  EXPECT_GE(meter.bytes(), std::int64_t{1} << 20);
  const double first = meter.measure(1e-6);
  EXPECT_GT(first, 0.0);
  EXPECT_GE(meter.measure(1e-6), first);
  const double last = meter.measure(1e-6);
  EXPECT_EQ(meter.best(), last);
}

}  // namespace
}  // namespace caravan::bench

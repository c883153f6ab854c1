#include "caravan/bench/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/philox.h"
#include "caravan/base/text.h"
#include "caravan/base/threads.h"
#include "caravan/bench/report.h"
#include "caravan/tensor/cuda_memory.h"
#include "caravan/train/config_keys.h"
#include "caravan/train/peak.h"
#include "caravan/train/prepare.h"
#include "caravan/train/setup.h"
#include "caravan/train/trainer.h"

namespace caravan::bench {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kFewest = 3;  // calls or steps that are timed

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Seconds of each call, at least kFewest and about `seconds` together.
template <typename Call>
std::vector<double> time_calls(double seconds, const Call& call) {
  std::vector<double> times;
  double spent = 0.0;
  while (static_cast<int>(times.size()) < kFewest || spent < seconds) {
    const Clock::time_point begin = Clock::now();
    call();
    times.push_back(seconds_since(begin));
    spent += times.back();
  }
  return times;
}

double median_of(std::vector<double> times) {
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

ops::Context context_for(const train::Config& config) {
  return ops::make_context(train::context_options(config));
}

model_io::HfConfig architecture_of(const train::Config& config) {
  const bool tokenizer_tells =
      !config.model.vocab_size && config.model.flavor.empty() && !config.checkpoint.initial_load_in_hf;
  const std::optional<tokenizer::Tokenizer> tokenizer = tokenizer_tells ? train::find_tokenizer(config) : std::nullopt;
  return train::architecture(config, train::start_config(config), tokenizer ? &*tokenizer : nullptr);
}

void check_options(const Options& options) {
  constexpr double kMostSeconds = 3600.0;
  if (!(options.seconds > 0.0 && options.seconds <= kMostSeconds)) {
    throw InputError(fmt::format("bench: {} seconds a case were asked for; give a number above 0 and up to {:.0f}",
                                 options.seconds, kMostSeconds));
  }
}

MachineSpeed measure_machine(ops::Context& ctx, const StepShape& shape, double seconds) {
  MachineSpeed speed;
  speed.processor = processor_name();
  speed.backend = ops::to_string(ctx.backend);
  speed.device = "cpu";
  if (ctx.backend == ops::Backend::kCuda) {
    speed.device = to_string(ctx.allocator->device());
    speed.processor = cuda_memory::describe(ctx.allocator->device().index);
  }
  speed.isa = to_string(ctx.isa);
  speed.threads = ctx.threads;
  speed.dtype = shape.dtype;
  double flops = 0.0;
  double best = 0.0;
  for (const Case& one : product_cases(shape)) {
    const CaseTime& time = speed.products.emplace_back(time_case(ctx, one, seconds));
    flops += static_cast<double>(time.calls) * time.flops;
    best += static_cast<double>(time.calls) * time.best;
  }
  speed.product_peak = flops / best;
  speed.square_peak = train::PeakMeter(ctx, shape.dtype).measure(seconds);
  train::ReadMeter reading(ctx);
  speed.read_bandwidth = reading.measure(seconds);
  speed.read_bytes = reading.bytes();
  return speed;
}

std::vector<Case> wanted_cases(const StepShape& shape, const std::string& filter) {
  std::vector<Case> cases = step_cases(shape);
  std::string names;
  for (const Case& one : cases) {
    names += (names.empty() ? "" : ", ") + one.name;
  }
  std::erase_if(cases, [&](const Case& one) { return one.name.find(filter) == std::string::npos; });
  if (cases.empty()) {
    throw InputError(fmt::format("bench: no op's name holds \"{}\"; there are {}", printable(filter, 60), names));
  }
  return cases;
}

// Micro-batches of full rows of random ids; the last of a row has no target, as in training.
std::vector<MicroBatch> random_batches(const StepShape& shape, std::uint64_t seed) {
  const RandomStream stream(seed, "bench.batches");
  std::vector<MicroBatch> batches;
  std::uint64_t index = 0;
  for (std::int64_t i = 0; i < shape.micro_batches; ++i) {
    MicroBatch batch{pack(std::vector<std::int64_t>(static_cast<std::size_t>(shape.rows), shape.seq_len)), {}, {}};
    for (std::int64_t row = 0; row < batch.layout.rows; ++row) {
      batch.ids.push_back(
          static_cast<std::int32_t>(stream.uniform(index++) * static_cast<double>(shape.model.vocab_size)));
    }
    batch.targets.assign(batch.ids.begin() + 1, batch.ids.end());
    batch.targets.push_back(kIgnoredTarget);
    for (std::int64_t end = shape.seq_len; end <= batch.layout.rows; end += shape.seq_len) {
      batch.targets[static_cast<std::size_t>(end) - 1] = kIgnoredTarget;
    }
    batches.push_back(std::move(batch));
  }
  return batches;
}

std::vector<OpTime> longest_first(const std::map<std::string, OpTime>& sums, std::int64_t steps) {
  std::vector<OpTime> result;
  for (const auto& [op, sum] : sums) {
    result.push_back(
        {op, sum.calls / steps, sum.prepare / static_cast<double>(steps), sum.run / static_cast<double>(steps)});
  }
  std::ranges::sort(result, std::ranges::greater{}, [](const OpTime& one) { return one.prepare + one.run; });
  return result;
}

// The plan of the step alone: nothing is evaluated, sampled or saved here.
train::MemoryPlan plan_step(const train::Config& config, const model_io::HfConfig& architecture,
                            std::optional<std::int64_t> available) {
  train::Config alone = config;
  alone.validation.enable = false;
  alone.checkpoint.enable = false;
  const train::MemoryPlan plan = train::plan_memory(alone, architecture, train::full_batches(alone, 1), {}, available);
  if (!plan.fits()) {
    throw OutOfMemoryError(fmt::format(
        "a step of this training needs {} bytes of memory and {} are available; lower training.local_batch_size or "
        "training.seq_len, or choose a smaller model",
        grouped(plan.needed()), grouped(plan.available.value_or(0))));
  }
  return plan;
}

// Steps as a run on a GPU takes them: the host hears of one while the GPU is at the next.
std::vector<double> time_steps_ahead(train::Trainer& trainer, const std::vector<MicroBatch>& batches, double seconds,
                                     double& loss) {
  trainer.begin_step(batches);
  const bool ahead = trainer.may_begin();
  const auto step = [&] {
    if (ahead) {
      trainer.begin_step(batches);
      loss = trainer.finish_step().loss;
    } else {
      loss = trainer.finish_step().loss;
      trainer.begin_step(batches);
    }
  };
  step();  // from here on a call takes as long as a step
  const std::vector<double> times = time_calls(seconds, step);
  loss = trainer.finish_step().loss;
  return times;
}

StepTime measure_step(const train::Config& config, const model_io::HfConfig& architecture, const StepShape& shape,
                      const train::MemoryPlan& plan, double seconds) {
  StepTime result;
  result.planned = plan;
  const auto seed = static_cast<std::uint64_t>(config.debug.seed);
  const std::vector<MicroBatch> batches = random_batches(shape, seed);
  result.tokens = shape.tokens() * shape.micro_batches;
  result.flops = train::flops_per_token(architecture.model, shape.seq_len) * static_cast<double>(result.tokens);

  ops::Context ctx = context_for(config);
  const auto ranks = comm::make_self();
  train::Trainer trainer(ctx, model_io::create_model(ctx, architecture, shape.dtype, seed, /*training=*/true),
                         train::trainer_options(config, train::kDefaultSteps), *ranks);
  trainer.step(batches);
  ops::synchronize(ctx);
  const std::int64_t plans = ops::plans_made(ctx);
  std::map<std::string, OpTime> sums;
  ctx.on_timed = [&](const ops::Timing& timing) {
    OpTime& sum = sums[timing.op];
    ++sum.calls;
    sum.prepare += timing.prepare;
    sum.run += timing.run;
  };
  const auto step = [&] {
    result.loss = trainer.step(batches).loss;
    ops::synchronize(ctx);
  };
  std::vector<double> times;
  if (ctx.backend == ops::Backend::kCuda) {
    // Timing an op waits for it, and a GPU that waits for the host after every op is not what a step costs: steps are
    // timed first, the ops of one more step afterwards.
    const auto listener = std::exchange(ctx.on_timed, nullptr);
    times = time_steps_ahead(trainer, batches, seconds, result.loss);
    ctx.on_timed = listener;
    step();
    result.timed_steps = 1;
  } else {
    times = time_calls(seconds, step);
    result.timed_steps = static_cast<std::int64_t>(times.size());
  }
  ctx.on_timed = nullptr;
  result.plans_made = ops::plans_made(ctx) - plans;
  result.used = ctx.allocator->use();
  result.steps = static_cast<std::int64_t>(times.size());
  result.best = *std::ranges::min_element(times);
  result.median = median_of(times);
  result.mean = std::reduce(times.begin(), times.end()) / static_cast<double>(times.size());
  result.ops = longest_first(sums, result.timed_steps);
  result.elsewhere = result.mean;
  for (const OpTime& one : result.ops) {
    result.elsewhere -= one.prepare + one.run;
  }
  // Ops that were waited for one by one may take longer than the step in which they follow each other.
  result.elsewhere = std::max(result.elsewhere, 0.0);
  return result;
}

}  // namespace

CaseTime time_case(ops::Context& ctx, const Case& one, double seconds) {
  const Work work = one.make(ctx);
  work.call();
  ops::synchronize(ctx);
  const std::vector<double> times = time_calls(seconds, [&] {
    work.call();
    ops::synchronize(ctx);
  });
  return {one.name,        one.calls,  static_cast<std::int64_t>(times.size()),
          work.flops,      work.bytes, *std::ranges::min_element(times),
          median_of(times)};
}

StepShape step_shape(const train::Config& config, const ops::Context& ctx) {
  train::validate(config);
  StepShape shape;
  shape.model = architecture_of(config).model;
  shape.rows = config.training.local_batch_size;
  shape.seq_len = config.training.seq_len;
  shape.micro_batches = train::micro_batches(config, 1);
  shape.dtype = train::compute_dtype(config, ctx);
  const std::int64_t most = nn::max_sequence_length(shape.model.rope);
  if (shape.seq_len < 2 || shape.seq_len > most) {
    throw ConfigError(fmt::format("training.seq_len {}: a row of this model has at least 2 ids and at most {}",
                                  shape.seq_len, grouped(most)));
  }
  return shape;
}

Report run_bench(const train::Config& config, const Options& options, const std::function<void(std::string)>& tell) {
  const auto say = [&](const std::string& line) {
    if (tell) {
      tell(line);
    }
  };
  check_options(options);
  Report report;
  std::optional<train::MemoryPlan> plan;
  // Before a context takes what a GPU has.
  const std::optional<std::int64_t> available = train::available_memory(config);
  {
    ops::Context ctx = context_for(config);
    report.shape = step_shape(config, ctx);
    report.parameters = parameter_count(model::parameter_specs(report.shape.model));
    // Mistakes are told before anything is timed.
    const std::vector<Case> cases = wanted_cases(report.shape, options.filter);
    if (options.step) {
      plan = plan_step(config, architecture_of(config), available);
    }
    const bool pinned = config.training.pin_threads && pin_threads(ctx.threads);
    report.machine = measure_machine(ctx, report.shape, options.seconds);
    report.machine.pinned = pinned;
    for (const std::string& line : machine_lines(report)) {
      say(line);
    }
    if (options.ops) {
      say("");
      say(op_heading());
      for (const Case& one : cases) {
        report.ops.push_back(time_case(ctx, one, options.seconds));
        say(op_line(report.ops.back(), report.machine));
      }
      say(op_sum_line(report.ops));
    }
  }
  if (plan) {
    report.step = measure_step(config, architecture_of(config), report.shape, *plan, options.seconds);
    say("");
    for (const std::string& line : step_lines(*report.step, report.machine)) {
      say(line);
    }
  }
  if (options.decode) {
    constexpr std::int64_t kPrompt = 128;
    constexpr std::int64_t kTokens = 256;
    ops::Context ctx = context_for(config);
    const model_io::LoadedModel model =
        model_io::create_model(ctx, architecture_of(config), report.shape.dtype, 0, /*training=*/false);
    report.decode = measure_decode(ctx, *model.llama, kPrompt, kTokens);
    say("");
    say(decode_line(*report.decode, report.machine));
  }
  return report;
}

}  // namespace caravan::bench

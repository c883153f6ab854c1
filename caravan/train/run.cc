#include "caravan/train/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <ostream>
#include <thread>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/progress.h"
#include "caravan/base/text.h"
#include "caravan/base/threads.h"
#include "caravan/data/loader.h"
#include "caravan/ops/trace.h"
#include "caravan/train/announce.h"
#include "caravan/train/config_keys.h"
#include "caravan/train/metrics.h"
#include "caravan/train/outputs.h"
#include "caravan/train/peak.h"
#include "caravan/train/plan.h"
#include "caravan/train/prepare.h"
#include "caravan/train/sampling.h"
#include "caravan/train/setup.h"

namespace caravan::train {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kPeakSeconds = 0.1;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// `capacity` in bytes; 0: what this machine has.
ops::Context context_of(const Config& config, std::int64_t capacity) {
  ops::ContextOptions options = context_options(config);
  options.memory_capacity = capacity;
  return ops::make_context(options);
}

Prepared prepare_with_bar(const Config& config, const RunEnvironment& environment) {
  std::unique_ptr<ProgressBar> bar;
  std::string current;
  const auto progress = [&](const std::string& dataset, std::int64_t done, std::int64_t total) {
    if (bar == nullptr || current != dataset) {
      current = dataset;
      bar = std::make_unique<ProgressBar>(environment.out, environment.terminal, "reading " + dataset, total);
    }
    bar->update(done);
  };
  Prepared prepared = prepare(config, progress);
  if (bar != nullptr) {
    bar->finish();
  }
  return prepared;
}

// One run from its first step to its last.
class Run {
 public:
  Run(const Config& config, const RunEnvironment& environment, Prepared prepared, ops::Context& ctx, Outputs& outputs)
      : config_(config),
        environment_(environment),
        prepared_(std::move(prepared)),
        ctx_(ctx),
        outputs_(outputs),
        compute_(compute_dtype(config, ctx)),
        total_(total_steps(config, prepared_.rows->total_rows(), 1)),
        trainer_(ctx, start_model(), trainer_options(config, total_), *ranks_),
        machine_(machine_of(ctx, compute_)) {}

  RunSummary run(const MemoryPlan& plan) {
    go_on_where_it_ended();
    RunSummary summary;
    summary.total_steps = total_;
    if (trainer_.steps() >= total_) {
      environment_.out << fmt::format(
          "finished: the checkpoint is of step {} and the run has {} steps; raise training.steps to train on\n",
          trainer_.steps(), total_);
    } else {
      train(plan, summary);
    }
    summary.step = trainer_.steps();
    if (config_.checkpoint.enable) {
      summary.checkpoint = outputs_.newest_checkpoint();
    }
    if (!summary.stopped && config_.checkpoint.last_save_in_hf) {
      summary.model = outputs_.export_model(trainer_.model(), trainer_.steps(), prepared_.companions);
    }
    return summary;
  }

 private:
  model_io::LoadedModel start_model() {
    if (config_.checkpoint.initial_load_in_hf) {
      model_io::LoadOptions options;
      options.training = true;
      model_io::LoadedModel model = model_io::load_model(ctx_, config_.checkpoint.initial_load_path, compute_, options);
      for (const std::string& warning : model.warnings) {
        environment_.out << "warning: " << warning << "\n";
      }
      return model;
    }
    return model_io::create_model(ctx_, prepared_.architecture, compute_,
                                  static_cast<std::uint64_t>(config_.debug.seed),
                                  /*training=*/true);
  }

  void go_on_where_it_ended() {
    std::optional<Resumed> resumed = outputs_.resume(trainer_, environment_.out);
    if (!resumed) {
      return;
    }
    if (resumed->model_only && trainer_.steps() < total_) {
      throw ConfigError(fmt::format(
          "the last save of this run, step {}, holds the weights alone (checkpoint.last_save_model_only): it "
          "cannot be trained on; start another job.dump_folder with checkpoint.initial_load_path {}",
          trainer_.steps(), outputs_.newest_checkpoint().string()));
    }
    next_row_ = resumed->state.next_row;
    for (const std::string& change : model_changes(resumed->state, prepared_.architecture)) {
      environment_.out << "warning: " << change << "\n";
    }
    if (resumed->same_run) {
      for (const std::string& change : changes_since(resumed->state, prepared_.data, machine_)) {
        environment_.out << "warning: " << change << "\n";
      }
    }
  }

  TrainState state() const {
    return {trainer_.steps(),
            trainer_.optimizer_steps(),
            trainer_.schedule_steps(),
            trainer_.tokens_seen(),
            next_row_,
            trainer_.loss_scaler(),
            prepared_.data,
            machine_,
            model_io::format_hf_config(prepared_.architecture, DType::kF32),
            print_toml(config_)};
  }

  void train(const MemoryPlan& plan, RunSummary& summary) {
    data::LoaderOptions loading;
    loading.micro_batch_rows = config_.training.local_batch_size;
    loading.micro_batches = micro_batches(config_, 1);
    loading.next_row = next_row_;
    loading.prefetch = static_cast<int>(config_.training.prefetch_steps);
    data::Loader loader(*prepared_.rows, loading);
    if (ctx_.backend != ops::Backend::kRef) {
      try {
        peak_.emplace(ctx_, compute_);
        peak_flops_ = peak_->measure(kPeakSeconds);
        if (on_gpu()) {
          peak_.reset();  // nobody else slows a GPU down: measured once, and its memory and time go back
        }
      } catch (const OutOfMemoryError&) {
        peak_.reset();  // mfu is not worth a run
      }
    }
    MetricsFiles files(outputs_.folder() / "metrics.jsonl",
                       config_.metrics.enable_tensorboard ? outputs_.folder() / config_.metrics.save_tb_folder : "",
                       trainer_.steps() + 1);
    Console console(environment_.out, environment_.terminal,
                    environment_.terminal && !config_.metrics.disable_color_printing, trainer_.steps() + 1, total_,
                    config_.metrics.log_freq);
    outputs_.forget_export();
    start_trace();
    bool stopping = false;
    for (bool over = false; !over;) {
      if (!stopping) {
        begin_steps(loader);
      }
      finish_step(files, console);
      stopping = stopping || (environment_.stop_requested && environment_.stop_requested());
      const std::int64_t step = trainer_.steps();
      over = step == total_ || (stopping && trainer_.under_way() == 0);
      trace_when_due(step, over, console);
      evaluate_when_due(step, files, console);
      sample_when_due(step, files, console);
      write_metrics(files, over, console);
      save_when_due(step, over, console);
    }
    console.finish();
    environment_.out << format_used(plan, ctx_.allocator->use());
    summary.stopped = trainer_.steps() < total_;
  }

  bool on_gpu() const { return ctx_.backend == ops::Backend::kCuda; }

  // Asks for the next step.  A GPU is asked for the one after as well, so that it goes on while the host reads what came of
  // the first; unless something else is to happen between them.
  void begin_steps(data::Loader& loader) {
    const std::int64_t most = on_gpu() ? 2 : 1;
    for (std::int64_t next = trainer_.steps() + trainer_.under_way();
         next < total_ && trainer_.under_way() < most && trainer_.may_begin() &&
         (trainer_.under_way() == 0 || !something_due(next));
         ++next) {
      begin_step(loader);
    }
  }

  // After that step, before the next.
  bool something_due(std::int64_t step) const {
    return trace_due(step) || evaluation_due(step) || sampling_due(step) || saving_due(step) ||
           saving_failed_.has_value();
  }

  void start_trace() {
    if (!environment_.trace.empty()) {
      ctx_.trace = std::make_shared<ops::Trace>(environment_.trace, ctx_);
      ctx_.trace->pause(true);
      trace_after_ = trainer_.steps() + 1;
    }
  }

  // The trace begins or ends after that step.
  bool trace_due(std::int64_t step) const {
    return ctx_.trace != nullptr && (step == trace_after_ || step >= trace_after_ + environment_.trace_steps);
  }

  void trace_when_due(std::int64_t step, bool last, Console& console) {
    if (ctx_.trace == nullptr) {
      return;
    }
    const std::int64_t done = step - trace_after_;
    if (done < environment_.trace_steps && !last) {
      ctx_.trace->pause(false);
      return;
    }
    ctx_.trace->finish();
    ctx_.trace.reset();
    console.line(
        done == 0
            ? fmt::format("{}: there was no step to trace, the first one is left out", environment_.trace.string())
            : fmt::format("{}: a trace of {} steps, for ui.perfetto.dev", environment_.trace.string(), done));
  }

  void begin_step(data::Loader& loader) {
    Begun begun;
    begun.at = Clock::now();
    const double waited_before = loader.waited_seconds();
    const data::StepBatch batch = [&] {
      const ops::TraceRange range(ctx_, "waiting for data");
      return loader.next();
    }();
    begun.waited_seconds = loader.waited_seconds() - waited_before;
    begun.next_row = batch.next_row;
    trainer_.begin_step(batch.micro_batches);
    begun_.push_back(begun);
  }

  // Of the oldest step begun: waits for it and tells what came of it.
  void finish_step(MetricsFiles& files, Console& console) {
    StepResult result;
    try {
      result = trainer_.finish_step();
    } catch (const NonFiniteError& error) {
      console.finish();
      outputs_.finish_saving();
      const fs::path newest = outputs_.newest_checkpoint();
      throw NonFiniteError(fmt::format(
          "{}; {}. Lower optimizer.lr, or set training.on_nan skip to pass over such steps", error.what(),
          newest.empty() ? "there is no checkpoint yet" : "the last good checkpoint is " + newest.string()));
    }
    const Begun begun = begun_.front();
    begun_.pop_front();
    next_row_ = begun.next_row;
    // A step begun ahead has been waiting for the one before.
    const Clock::time_point from = std::max(begun.at, finished_at_);
    finished_at_ = Clock::now();
    StepMetrics metrics;
    metrics.step = trainer_.steps();
    metrics.loss = result.loss;
    metrics.grad_norm = result.grad_norm;
    metrics.lr = result.lr;
    if (trainer_.loss_scaler()) {
      metrics.loss_scale = result.loss_scale;
    }
    metrics.seconds = std::chrono::duration<double>(finished_at_ - from).count();
    metrics.data_seconds = begun.waited_seconds;
    metrics.tokens_per_second = static_cast<double>(result.tokens) / metrics.seconds;
    if (peak_ && metrics.step % config_.metrics.log_freq == 0) {
      // Measured again where a line is shown: other work on the machine may have slowed the first measurement.
      peak_flops_ = peak_->measure(0.0);
    }
    if (peak_flops_ > 0.0) {
      metrics.mfu = metrics.tokens_per_second *
                    flops_per_token(prepared_.architecture.model, config_.training.seq_len) / peak_flops_;
    }
    metrics.memory_gib = static_cast<double>(ctx_.allocator->use().high_water) / kGiB;
    metrics.n_tokens_seen = trainer_.tokens_seen();
    metrics.epoch = static_cast<double>(next_row_) / static_cast<double>(rows_per_epoch_);
    files.step(metrics);
    console.step(metrics);
    if (!result.applied && trainer_.loss_scaler() && std::isfinite(result.loss)) {
      console.line(fmt::format("step {}: gradients overflowed float16; the step was skipped, the loss scale is now {}",
                               metrics.step, trainer_.loss_scaler()->scale));
    } else if (!result.applied) {
      console.line(fmt::format("step {}: loss {} or gradient norm {} is no number; the step was skipped", metrics.step,
                               result.loss, result.grad_norm));
    }
  }

  bool evaluation_due(std::int64_t step) const {
    return prepared_.validation != nullptr && (step == 1 || step % config_.validation.freq == 0 || step == total_);
  }

  void evaluate_when_due(std::int64_t step, MetricsFiles& files, Console& console) {
    if (!evaluation_due(step)) {
      return;
    }
    const Clock::time_point begin = Clock::now();
    data::LoaderOptions loading;
    loading.micro_batch_rows = config_.validation.local_batch_size;
    data::Loader loader(*prepared_.validation, loading);
    Evaluation sum;
    double bytes = 0.0;
    for (std::int64_t row = 0; row < prepared_.validation_rows; row += loading.micro_batch_rows) {
      const data::StepBatch batch = loader.next();
      const Evaluation one = trainer_.evaluate(batch.micro_batches);
      sum.loss_sum += one.loss_sum;
      sum.targets += one.targets;
      bytes += target_bytes(batch.micro_batches);
    }
    ValidationMetrics metrics;
    metrics.step = step;
    metrics.targets = sum.targets;
    metrics.loss = sum.loss_sum / static_cast<double>(std::max<std::int64_t>(1, sum.targets));
    if (bytes > 0.0) {
      metrics.bits_per_byte = sum.loss_sum / std::log(2.0) / bytes;
    }
    metrics.seconds = seconds_since(begin);
    files.validation(metrics);
    console.validation(metrics);
  }

  // Bytes of text that the targets stand for; special tokens stand for none.  0 without a tokenizer.
  double target_bytes(const std::vector<MicroBatch>& batches) const {
    if (!prepared_.tokenizer) {
      return 0.0;
    }
    double bytes = 0.0;
    for (const MicroBatch& batch : batches) {
      for (const std::int32_t target : batch.targets) {
        if (target != kIgnoredTarget && target < prepared_.tokenizer->vocab_size() &&
            !prepared_.tokenizer->is_special(target)) {
          bytes += static_cast<double>(prepared_.tokenizer->bytes(target).size());
        }
      }
    }
    return bytes;
  }

  bool sampling_due(std::int64_t step) const {
    const std::int64_t freq = config_.sampling.freq;
    return freq > 0 && prepared_.tokenizer && (step % freq == 0 || step == total_);
  }

  void sample_when_due(std::int64_t step, MetricsFiles& files, Console& console) {
    if (!sampling_due(step)) {
      return;
    }
    for (const std::string& prompt : config_.sampling.prompts) {
      const std::string text = sample_text(ctx_, trainer_.model(), *prepared_.tokenizer, config_, prompt, step);
      files.sample(step, prompt, text);
      console.sample(step, prompt, text);
    }
  }

  // Before the checkpoint of the same step: a resumed run finds the lines of every step before its own.
  void write_metrics(MetricsFiles& files, bool last, Console& console) {
    try {
      files.flush();
    } catch (const FileError& error) {
      after_failure(
          "writing the metrics", error, last, [&] { files.flush(); }, console);
    }
  }

  bool saves() const { return config_.checkpoint.enable && !config_.checkpoint.load_only; }

  bool saving_due(std::int64_t step) const {
    return saves() && (step == total_ || step % config_.checkpoint.interval == 0 ||
                       (step == 1 && config_.checkpoint.enable_first_step_checkpoint));
  }

  void save_when_due(std::int64_t step, bool last, Console& console) {
    if (!saves()) {
      return;
    }
    const bool due = last || saving_due(step);
    const auto save = [&](bool wait) { outputs_.save(trainer_, state(), wait, /*final=*/step == total_); };
    try {
      outputs_.check_saving(/*wait=*/due);
    } catch (const FileError& error) {
      saving_failed_ = error;
    }
    if (trainer_.under_way() > 0) {
      return;  // what is saved is of a step that no other has followed
    }
    if (const std::optional<FileError> error = std::exchange(saving_failed_, std::nullopt)) {
      if (after_failure(
              "saving", *error, /*last=*/false, [&] { save(/*wait=*/true); }, console)) {
        return;
      }
    }
    if (due) {
      try {
        save(/*wait=*/last);
      } catch (const FileError& error) {
        after_failure(
            "saving", error, last, [&] { save(/*wait=*/true); }, console);
      }
    }
  }

  // What a file system refused, as checkpoint.on_save_failure says: ends the run; or waits until `again` works, and
  // returns true; or passes over it, which the last step of a run cannot.
  bool after_failure(const char* what, const FileError& error, bool last, const std::function<void()>& again,
                     Console& console) {
    const fs::path newest = outputs_.newest_checkpoint();
    const std::string kept =
        newest.empty() ? "there is no earlier checkpoint" : "the checkpoint " + newest.string() + " is whole";
    const std::string& policy = config_.checkpoint.on_save_failure;
    if (policy == "stop" || (policy == "continue" && last)) {
      console.finish();
      throw FileError(fmt::format("step {}: {} failed: {}; {}. Make room and run {} again", trainer_.steps(), what,
                                  error.what(), kept, environment_.resume_command));
    }
    console.line(fmt::format("step {}: {} failed: {}; {}", trainer_.steps(), what, error.what(), kept));
    while (policy == "pause") {
      console.line(fmt::format("training pauses; the next attempt is in {} seconds", config_.checkpoint.pause_seconds));
      if (stopped_while_waiting()) {
        console.finish();
        throw FileError(fmt::format("step {}: {} failed: {}; {}. Make room and run {} again", trainer_.steps(), what,
                                    error.what(), kept, environment_.resume_command));
      }
      try {
        again();
        console.line(fmt::format("step {}: {} worked; training goes on", trainer_.steps(), what));
        return true;
      } catch (const FileError& failure) {
        console.line(fmt::format("step {}: {} failed: {}", trainer_.steps(), what, failure.what()));
      }
    }
    return false;
  }

  // Waits as long as a pause lasts; true when somebody wants the run to end.
  bool stopped_while_waiting() const {
    const Clock::time_point begin = Clock::now();
    while (seconds_since(begin) < config_.checkpoint.pause_seconds) {
      if (environment_.stop_requested && environment_.stop_requested()) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return environment_.stop_requested && environment_.stop_requested();
  }

  // What the host remembers of a step that the device is at.
  struct Begun {
    Clock::time_point at;
    double waited_seconds = 0.0;  // for data
    std::int64_t next_row = 0;
  };

  const Config& config_;
  const RunEnvironment& environment_;
  Prepared prepared_;
  ops::Context& ctx_;
  Outputs& outputs_;
  DType compute_;
  std::int64_t total_;
  std::unique_ptr<comm::Communicator> ranks_ = comm::make_self();
  Trainer trainer_;
  Machine machine_;
  std::int64_t rows_per_epoch_ = prepared_.rows->rows_per_epoch();  // the loader's thread has `rows` from then on
  std::int64_t next_row_ = 0;
  std::optional<PeakMeter> peak_;  // none on the reference, and none on a GPU once it has measured
  double peak_flops_ = 0.0;        // a second, of products; 0: not known
  std::deque<Begun> begun_;
  Clock::time_point finished_at_;  // the newest step that is over
  std::int64_t trace_after_ = 0;   // the step before the first traced one, which makes what later ones use again
  std::optional<FileError> saving_failed_;
};

}  // namespace

std::string describe_plan(const Config& config, bool& fits) {
  const std::optional<tokenizer::Tokenizer> tokenizer = find_tokenizer(config);
  const model_io::HfConfig architecture =
      train::architecture(config, start_config(config), tokenizer ? &*tokenizer : nullptr);
  const Prompts prompts = sample_prompts(config, tokenizer ? &*tokenizer : nullptr);
  const MemoryPlan plan = plan_memory(config, architecture, full_batches(config, 1), prompts, available_memory(config));
  fits = plan.fits();
  std::string text =
      fmt::format("model: {} parameters\n", grouped(parameter_count(model::parameter_specs(architecture.model))));
  text += format_plan(plan);
  text += !plan.available ? "whether it fits is to be asked where the GPU is\n"
          : fits          ? "it fits\n"
                          : "it does not fit: " + not_fitting(config, architecture, prompts, plan) + "\n";
  return text;
}

RunSummary run_training(const Config& config, const RunEnvironment& environment) {
  validate(config);
  Outputs outputs(config);
  outputs.prepare_folders();
  outputs.check_start();
  Prepared prepared = prepare_with_bar(config, environment);
  outputs.keep_assets(prepared.companions, prepared.architecture, !prepared.start);
  ops::Context ctx = context_of(config, 0);
  if (config.training.pin_threads && !pin_threads(ctx.threads)) {
    environment.out << fmt::format(
        "warning: training.pin_threads: {} threads cannot have a processor each here; they run unpinned\n",
        ctx.threads);
  }

  // The plan walks over full rows of one sequence each; short documents take somewhat more workspace.
  const Prompts prompts = sample_prompts(config, prepared.tokenizer ? &*prepared.tokenizer : nullptr);
  const bool on_gpu = ctx.backend == ops::Backend::kCuda;
  const MemoryPlan plan = plan_memory(config, prepared.architecture, full_batches(config, 1), prompts,
                                      on_gpu ? ctx.allocator->use().capacity : usable_memory());
  print_start(config, prepared, ctx, plan, environment.out);
  if (!plan.fits()) {
    throw OutOfMemoryError(not_fitting(config, prepared.architecture, prompts, plan));
  }
  // Under a limit on address space the system may grant half of what there is, and not the part that was planned.
  if (ctx.allocator->use().capacity < plan.use.high_water) {
    constexpr std::int64_t kShareForShortDocuments = 16;  // whose layouts take more workspace than the plan's
    ctx.allocator.reset();                                // its address space first
    ctx = context_of(config, plan.use.high_water + plan.use.high_water / kShareForShortDocuments);
  }
  Run run(config, environment, std::move(prepared), ctx, outputs);
  const RunSummary summary = run.run(plan);
  if (summary.stopped) {
    environment.out << fmt::format("stopped at step {} of {}; {}\n", summary.step, summary.total_steps,
                                   how_to_go_on(config, environment.resume_command, summary.step));
  } else if (!summary.model.empty()) {
    environment.out << fmt::format("the model is in {}; next: caravan generate --model {} --prompt \"...\"\n",
                                   summary.model.string(), shell_word(summary.model.string()));
  }
  return summary;
}

}  // namespace caravan::train

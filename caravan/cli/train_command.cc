#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/cli/commands.h"
#include "caravan/cli/config_options.h"
#include "caravan/cli/shared_options.h"
#include "caravan/train/config_keys.h"
#include "caravan/train/run.h"

namespace caravan::cli {

namespace {

// Signal handlers reach nothing but globals; these are set by them and read between two steps.
std::atomic<int> stop_signals{0};
std::atomic<bool> steps_done{false};  // there is something to save

void say(std::string_view sentence) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, sentence.data(), sentence.size());
}

// Nothing on disk is half-written at any moment, so leaving at once harms nothing.
extern "C" void on_stop_signal(int signal) {
  const int before = stop_signals.fetch_add(1);
  if (before > 0) {
    _exit(128 + signal);
  }
  if (!steps_done) {
    say("caravan: stopped before a step was done; nothing is lost, the same command begins where this one did\n");
    _exit(128 + signal);
  }
  say("caravan: the run ends when its step is done and saved; once more leaves at once\n");
}

// Nobody reads standard output any more, which every further line would tell again.
extern "C" void on_broken_pipe(int signal) {
  if (!steps_done) {
    _exit(128 + signal);
  }
  int none = 0;
  if (stop_signals.compare_exchange_strong(none, 1)) {
    say("caravan: nobody reads the output any more; the run ends when its step is done and saved\n");
  }
}

// SIGINT and SIGTERM, a terminal that is closed and a pipe that nobody reads ask for a stop as long as the object lives.
class StopSignals {
 public:
  StopSignals() {
    stop_signals = 0;
    steps_done = false;
    for (Former& one : former_) {
      struct sigaction action {};
      action.sa_handler = one.signal == SIGPIPE ? on_broken_pipe : on_stop_signal;
      sigemptyset(&action.sa_mask);
      action.sa_flags = SA_RESTART;
      sigaction(one.signal, &action, &one.action);
      if (one.signal == SIGHUP && one.action.sa_handler == SIG_IGN) {  // nohup
        sigaction(one.signal, &one.action, nullptr);
      }
    }
  }
  ~StopSignals() {
    for (const Former& one : former_) {
      sigaction(one.signal, &one.action, nullptr);
    }
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Asked after every step.
  static bool asked() {
    steps_done = true;
    return stop_signals > 0;
  }

 private:
  struct Former {
    int signal;
    struct sigaction action {};
  };
  std::array<Former, 4> former_ = {{{SIGINT}, {SIGTERM}, {SIGHUP}, {SIGPIPE}}};
};

// The command line with the program as it was typed: build/release/caravan is not found by its bare name.
std::string resume_command(const ParsedOptions& options) {
  const std::string& line = options.command_line();
  return shell_line(std::vector<std::string>{program_invocation_name}) + line.substr(line.find(' '));
}

int run_train(const ParsedOptions& options, Streams streams) {
  const train::Config config = read_config(options);
  if (options.has("--print-config")) {
    train::validate(config);
    streams.out << train::print_toml(config);
    return 0;
  }
  const StopSignals signals;
  train::RunEnvironment environment{streams.out};
  environment.terminal = &streams.out == &std::cout && isatty(STDOUT_FILENO) != 0;
  environment.stop_requested = StopSignals::asked;
  environment.resume_command = resume_command(options);
  if (options.has("--trace")) {
    environment.trace = options.path("--trace");
    environment.trace_steps = options.integer("--trace-steps").value();
  }
  train::run_training(config, environment);
  return 0;
}

int run_plan(const ParsedOptions& options, Streams streams) {
  const train::Config config = read_config(options);
  train::validate(config);
  bool fits = false;
  streams.out << train::describe_plan(config, fits);
  return fits ? 0 : 1;
}

}  // namespace

Command train_command() {
  CommandSpec spec;
  spec.name = "train";
  spec.summary = "train a model on text, from initial values or from a model that is there";
  spec.description =
      "Reads CONFIG.toml (torchtitan's sections and keys) and flags of the same names, which win; tokenises the data "
      "once; trains; saves checkpoints below job.dump_folder and at the end a Hugging Face directory. The same command "
      "goes on where a run was stopped. Ctrl-C (SIGTERM, a closed terminal) finishes the step and saves; a second one "
      "leaves at once and harms nothing.";
  spec.options = config_options();
  spec.options.push_back({.name = "--print-config",
                          .value_name = "",
                          .kind = OptionKind::kFlag,
                          .help = "print the resolved configuration and end"});
  spec.options.push_back(trace_option());
  spec.options.push_back({.name = "--trace-steps",
                          .value_name = "N",
                          .kind = OptionKind::kInteger,
                          .help = "how many steps --trace takes, behind the first, which prepares",
                          .default_value = "3",
                          .minimum = 1});
  spec.examples = {"caravan train my_model.toml",
                   "caravan train my_model.toml --training.steps 100 --optimizer.lr 1e-3",
                   "caravan train --checkpoint.initial_load_path DIR --checkpoint.initial_load_in_hf --data my_text "
                   "--training.seq_len 512"};
  return {spec, run_train};
}

Command plan_command() {
  CommandSpec spec;
  spec.name = "plan";
  spec.summary = "tell how much memory a training takes, before it runs";
  spec.description =
      "Walks through a training step without computing: weights, gradients, optimizer, activations and workspace to "
      "the "
      "byte. Where it does not fit, names the nearest setting that does. Exits with 0 when it fits and 1 when not.";
  spec.options = config_options();
  spec.examples = {"caravan plan my_model.toml", "caravan plan --model.flavor llama3.2-1b --training.seq_len 4096"};
  return {spec, run_plan};
}

}  // namespace caravan::cli

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/config_options.h"
#include "caravan/train/run.h"

namespace caravan::cli {

namespace {

// Signal handlers reach nothing but globals; this one is set by them and read between two steps.
std::atomic<int> stop_signals{0};

extern "C" void on_stop_signal(int signal) {
  // The second time the user means now: nothing on disk is half-written, so leaving at once harms nothing.
  if (stop_signals.fetch_add(1) > 0) {
    _exit(128 + signal);
  }
}

// SIGINT and SIGTERM ask for a stop as long as the object lives.
class StopSignals {
 public:
  StopSignals() {
    stop_signals = 0;
    struct sigaction action {};
    action.sa_handler = on_stop_signal;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, &former_int_);
    sigaction(SIGTERM, &action, &former_term_);
  }
  ~StopSignals() {
    sigaction(SIGINT, &former_int_, nullptr);
    sigaction(SIGTERM, &former_term_, nullptr);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  struct sigaction former_int_ {};
  struct sigaction former_term_ {};
};

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
  environment.stop_requested = [] { return stop_signals.load() > 0; };
  environment.resume_command = command_line(options);
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

}  // namespace caravan::cli

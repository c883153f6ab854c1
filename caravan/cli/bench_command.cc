#include <nlohmann/json.hpp>
#include <ostream>
#include <ranges>

#include "caravan/bench/bench.h"
#include "caravan/bench/report.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/config_options.h"
#include "caravan/cli/shared_options.h"

namespace caravan::cli {

namespace {

int run_bench(const ParsedOptions& options, Streams streams) {
  const std::vector<std::string> what = options.list("--what");
  const auto asked = [&](const char* part) { return std::ranges::find(what, part) != what.end(); };
  bench::Options wanted;
  wanted.ops = asked("ops");
  wanted.step = asked("step");
  wanted.decode = asked("decode");
  wanted.seconds = options.number("--seconds").value();
  wanted.filter = options.text("--filter");
  const train::Config config = read_config(options);
  if (options.has("--json")) {
    streams.out << bench::to_json(bench::run_bench(config, wanted, {})).dump() << "\n";
    return 0;
  }
  bench::run_bench(config, wanted, [&](const std::string& line) { streams.out << line << std::endl; });
  return 0;
}

}  // namespace

Command bench_command() {
  CommandSpec spec;
  spec.name = "bench";
  spec.summary = "measure this machine, every op of a training step, and the whole step";
  spec.description =
      "Takes the model's sizes and the batch as `caravan train` does; values and ids are random, no data set is read. "
      "Prints the peak of the model's own products and the read bandwidth; then each op at the model's shapes with its "
      "share of both; then whole training steps: tokens per second, share of the product peak, time by op, memory; "
      "and, "
      "where --what asks for it, decoding of one sequence.";
  spec.options = config_options();
  const std::vector<OptionSpec> own = {{.name = "--what",
                                        .value_name = "LIST",
                                        .kind = OptionKind::kChoiceList,
                                        .help = "what to measure; machine is always part of it",
                                        .default_value = "ops,step",
                                        .choices = {"machine", "ops", "step", "decode"}},
                                       {.name = "--seconds",
                                        .value_name = "S",
                                        .kind = OptionKind::kNumber,
                                        .help = "how long each op, and the step, is measured; at least three times",
                                        .default_value = "0.5"},
                                       {.name = "--filter",
                                        .value_name = "TEXT",
                                        .kind = OptionKind::kText,
                                        .help = "measure the ops whose names hold TEXT"},
                                       json_option()};
  spec.options.insert(spec.options.begin() + 1, own.begin(), own.end());
  spec.examples = {"caravan bench my_model.toml", "caravan bench my_model.toml --what ops --filter attention",
                   "caravan bench --model.flavor llama3.2-1b --training.seq_len 1024 --training.local_batch_size 1"};
  return {spec, run_bench};
}

}  // namespace caravan::cli

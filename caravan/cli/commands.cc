#include "caravan/cli/commands.h"

#include <ostream>

#include "caravan/base/version.h"
#include "caravan/cli/completion.h"

namespace caravan::cli {

std::vector<Command> commands() {
  return {train_command(),           plan_command(),    bench_command(),
          generate_command(),        chat_command(),    tokenize_command(),
          tokenizer_train_command(), inspect_command(), convert_command(),
          compare_command(),         dump_command(),    init_command(),
          presets_command()};
}

Program program() {
  Program result;
  result.name = "caravan";
  result.version = version();
  result.summary = "Llama models in native C++: train, generate, chat, describe, convert, compute and compare.";
  for (const Command& one : commands()) {
    result.commands.push_back(one.spec);
  }
  result.commands.push_back(completion_command());
  result.common_options = {{.name = "--threads",
                            .value_name = "N",
                            .kind = OptionKind::kInteger,
                            .help = "threads to compute with",
                            .default_value = "",
                            .default_note = "the cores this process may use",
                            .minimum = 1,
                            .maximum = 1024}};
  return result;
}

int run(std::span<const std::string> arguments, Streams streams) {
  const Program table = program();
  const Invocation invocation = parse(table, arguments);
  switch (invocation.action) {
    case Invocation::Action::kVersion:
      streams.out << table.name << " " << table.version << "\n";
      return 0;
    case Invocation::Action::kHelp:
      streams.out << (invocation.command == nullptr ? help_text(table) : help_text(table, *invocation.command));
      return 0;
    case Invocation::Action::kRun:
      break;
  }
  for (const Command& one : commands()) {
    if (one.spec.name == invocation.command->name) {
      return one.run(invocation.options, streams);
    }
  }
  streams.out << completion_script(table, invocation.options.text(invocation.command->options.front().name));
  return 0;
}

}  // namespace caravan::cli

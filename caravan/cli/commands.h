// The commands of the program: their rows of the option table, and what each does.
//
// A command reads what it is fed from `in`, prints its result on `out` and warnings on `err`, and returns the exit
// status; what goes wrong is thrown.
#pragma once

#include <iostream>

#include "caravan/cli/options.h"

namespace caravan::cli {

struct Streams {
  std::ostream& out;
  std::ostream& err;
  std::istream& in = std::cin;
};

// One row of the program: the table's entry and the code behind it.
struct Command {
  CommandSpec spec;
  int (*run)(const ParsedOptions& options, Streams streams);
};

Command train_command();
Command plan_command();
Command bench_command();
Command inspect_command();
Command dump_command();
Command compare_command();
Command convert_command();
Command init_command();
Command presets_command();
Command generate_command();
Command chat_command();
Command tokenize_command();
Command tokenizer_train_command();

// All of them, in the order of `caravan --help`.
std::vector<Command> commands();

// The whole table: the commands above and `completion`.
Program program();

// Runs one command line (without the program's name).  Returns the exit status; throws what commands throw.
int run(std::span<const std::string> arguments, Streams streams);

}  // namespace caravan::cli

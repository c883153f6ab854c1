// Shell completion from the option table: commands, options, choices, files and directories.
#pragma once

#include <string>

#include "caravan/cli/options.h"

namespace caravan::cli {

// The command `completion SHELL`, for the program's own table.
CommandSpec completion_command();

// A script that teaches `shell` ("bash", "zsh" or "fish") the program's command line, made to be sourced:
//   source <(caravan completion bash)        or stored where the shell looks for completions.
// Throws InputError for another shell.
std::string completion_script(const Program& program, const std::string& shell);

}  // namespace caravan::cli

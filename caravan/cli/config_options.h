// The options of `caravan train CONFIG.toml [--section.key value ...]` and of every command that takes a configuration.
#pragma once

#include <vector>

#include "caravan/cli/options.h"
#include "caravan/train/config.h"

namespace caravan::cli {

// The positional CONFIG.toml (not required), every key of config_keys() as --section.key, grouped by section, and the
// plain names.
std::vector<OptionSpec> config_options();

// The defaults, then what CONFIG.toml sets, then what flags set; `--threads` of the program is training.threads.
// Not yet validated.  Throws FileError, ConfigError, and InputError when a key is given by both of its names.
train::Config read_config(const ParsedOptions& options);

}  // namespace caravan::cli

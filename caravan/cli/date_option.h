// --date: the day that chat templates write.
#pragma once

#include <ctime>

#include "caravan/cli/options.h"

namespace caravan::cli {

OptionSpec date_option();

// Midnight of the day that the user gave, else the moment by the machine's clock.
// Throws InputError unless it is a day written as 2024-07-26.
std::tm date_of(const ParsedOptions& options);

}  // namespace caravan::cli

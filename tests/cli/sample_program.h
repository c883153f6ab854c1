// A table with every kind of option, for the tests of what is made from tables.
#pragma once

#include "caravan/cli/options.h"

namespace caravan::cli {

Program sample_program();

}  // namespace caravan::cli

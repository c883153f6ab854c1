// What a run says before its first step and after its last.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "caravan/ops/context.h"
#include "caravan/train/config.h"
#include "caravan/train/plan.h"
#include "caravan/train/prepare.h"

namespace caravan::train {

// Model, data, steps, device and the memory plan, a line or a table each.
void print_start(const Config& config, const Prepared& prepared, const ops::Context& ctx, const MemoryPlan& plan,
                 std::ostream& out);

// The command that continues a run stopped at `step`; what would make it begin elsewhere is named.
std::string how_to_go_on(const Config& config, const std::string& command, std::int64_t step);

// That a plan needs more than there is, and the nearest setting that does not.
std::string not_fitting(const Config& config, const model_io::HfConfig& architecture, const Prompts& prompts,
                        const MemoryPlan& plan);

}  // namespace caravan::train

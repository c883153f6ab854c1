// The report of a benchmark, for people and for programs.
#pragma once

#include <string>
#include <vector>

#include "caravan/base/json.h"
#include "caravan/bench/bench.h"

namespace caravan::bench {

// Lines of the text, without line ends: the machine and the model; the heading and a row of the table of ops; the whole
// step.
std::vector<std::string> machine_lines(const Report& report);
std::string op_heading();
std::string op_line(const CaseTime& time, const MachineSpeed& machine);
std::string op_sum_line(const std::vector<CaseTime>& times);
std::vector<std::string> step_lines(const StepTime& step, const MachineSpeed& machine);

// Tokens per second of one sequence, and what they read beside what the machine reads.
std::string decode_line(const DecodeTime& decode, const MachineSpeed& machine);

// {"machine": {...}, "model": {...}, "batch": {...}, "ops": [...], "step": {...}}; ops and step where they were measured.
// docs/bench.md lists the keys.
Json to_json(const Report& report);

}  // namespace caravan::bench

// Pipeline schedules as plain values: who computes what in which order.
//
// Four pieces know nothing of each other's insides: makers (below), print, check and simulate (below), and the executor
// (executor.h).  Gradient accumulation is the schedule of one stage.  A schedule is data: it can be printed, read from
// text, drawn, and compared by hash.
//
// Sources: GPipe (Huang et al. 2019), 1F1B (Narayanan et al. 2019, PipeDream-flush), ZB-H1 (Qi et al. 2024, "Zero
// Bubble Pipeline Parallelism"); torch.distributed.pipelining for the letters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caravan::parallel {

enum class Work : char {
  kForward = 'F',
  kBackward = 'B',        // input and weight gradients, node by node
  kInputGradient = 'I',   // input gradients alone
  kWeightGradient = 'W',  // the weight gradients that an I left
};

struct Step {
  Work work = Work::kForward;
  int stage = 0;
  int micro_batch = 0;

  bool operator==(const Step&) const = default;
};

// steps[rank] is what that rank does, in order.  Sends and receives follow from the steps: a forward's result goes to
// the stage after, an input gradient to the stage before.
struct Schedule {
  int stages = 1;
  int micro_batches = 1;
  std::vector<std::vector<Step>> steps;  // one list a rank
  std::vector<int> rank_of_stage;        // [stages]

  bool operator==(const Schedule&) const = default;
};

// One rank, one stage: forward and backward of one micro-batch after the other.
Schedule accumulate(int micro_batches);
// All forwards, then all backwards in reverse order of the micro-batches' arrival at the last stage.
Schedule gpipe(int stages, int micro_batches);
// Warm-up of (stages - 1 - rank) forwards, then one forward and one backward in turn, then the rest.
Schedule one_forward_one_backward(int stages, int micro_batches);
// ZB-H1: as 1F1B with backwards split; weight gradients fill the bubbles.  Every rank holds up to `stages`
// micro-batches, as 1F1B's first rank does.
Schedule zero_bubble_h1(int stages, int micro_batches);

// "rank 0: F0.0 F0.1 B0.0 ..." (work, stage.micro-batch), a line a rank.
std::string print(const Schedule& schedule);
// The value that print() shows; '#' opens a comment, and empty lines are passed over.  The numbers of stages and
// micro-batches are those that occur, and a stage is on the rank where it stands.  Throws ConfigError naming line and
// word; whether the schedule can run is for problems() to tell.
Schedule parse(const std::string& text);

// Why the schedule cannot run or would compute something else: every (stage, micro-batch) needs exactly one F and
// either one B or one I followed by one W, on its stage's rank; dependencies must admit an order (no deadlock);
// neighbouring stages must take the micro-batches in one order.  Empty
// when all is well; of very many reasons only the first.
std::vector<std::string> problems(const Schedule& schedule);

// How long each kind of work takes on every stage, in any unit.
struct Durations {
  double forward = 1.0;
  double input_gradient = 1.0;
  double weight_gradient = 1.0;
};

struct Simulation {
  double time = 0.0;                    // until the last step ends
  std::vector<double> bubble;           // [ranks] idle time within it
  std::vector<int> peak_micro_batches;  // [ranks] stage-micro-batches whose activations are held at once
};

// Runs the schedule against a clock; communication takes no time.  Throws ConfigError when problems() is not empty
// or a duration is negative or infinite.
Simulation simulate(const Schedule& schedule, const Durations& durations);

// A drawing: one line a rank, one column a unit of time: "rank 1: . F0 B0 B0".  A column names work and micro-batch,
// and the stage before them where a rank has several; "." is idle.  Throws ConfigError as simulate() does, or when it
// would be wider than 100,000 columns.
std::string draw(const Schedule& schedule, const Durations& durations);

}  // namespace caravan::parallel

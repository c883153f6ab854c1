#include <fmt/format.h>

#include <algorithm>

#include "caravan/base/error.h"
#include "caravan/parallel/schedule.h"

namespace caravan::parallel {
namespace {

// One stage a rank, no steps yet.
Schedule stages_in_a_row(const char* maker, int stages, int micro_batches) {
  if (stages < 1 || micro_batches < 1) {
    throw ConfigError(fmt::format("{}: at least one stage and one micro-batch expected, found {} and {}", maker, stages,
                                  micro_batches));
  }
  Schedule schedule;
  schedule.stages = stages;
  schedule.micro_batches = micro_batches;
  schedule.steps.resize(static_cast<std::size_t>(stages));
  for (int stage = 0; stage < stages; ++stage) {
    schedule.rank_of_stage.push_back(stage);
  }
  return schedule;
}

// The steps of one stage, each kind of work over the micro-batches in order.
class StageSteps {
 public:
  StageSteps(std::vector<Step>& steps, int stage, int micro_batches)
      : steps_(steps), stage_(stage), micro_batches_(micro_batches) {}

  void forward() { steps_.push_back({Work::kForward, stage_, forwards_++}); }
  void backward() { steps_.push_back({Work::kBackward, stage_, backwards_++}); }
  void input_gradient() { steps_.push_back({Work::kInputGradient, stage_, backwards_++}); }
  void weight_gradient() { steps_.push_back({Work::kWeightGradient, stage_, weight_gradients_++}); }

  bool more_forwards() const { return forwards_ < micro_batches_; }
  bool more_backwards() const { return backwards_ < micro_batches_; }
  bool more_weight_gradients() const { return weight_gradients_ < micro_batches_; }
  // Input gradients done whose weight gradients are not.
  int owed() const { return backwards_ - weight_gradients_; }

 private:
  std::vector<Step>& steps_;
  int stage_;
  int micro_batches_;
  int forwards_ = 0;
  int backwards_ = 0;
  int weight_gradients_ = 0;
};

// Every stage begins with the warm-up of 1F1B, one forward for each stage after it; fill(steps, stage) does the rest.
template <typename Fill>
Schedule filled(Schedule schedule, const Fill& fill) {
  for (int stage = 0; stage < schedule.stages; ++stage) {
    StageSteps steps(schedule.steps[static_cast<std::size_t>(stage)], stage, schedule.micro_batches);
    for (int i = 0; i < std::min(schedule.stages - 1 - stage, schedule.micro_batches); ++i) {
      steps.forward();
    }
    fill(steps, stage);
  }
  return schedule;
}

}  // namespace

Schedule accumulate(int micro_batches) {
  stages_in_a_row("accumulate", 1, micro_batches);
  return one_forward_one_backward(1, micro_batches);
}

Schedule gpipe(int stages, int micro_batches) {
  Schedule schedule = stages_in_a_row("gpipe", stages, micro_batches);
  for (int stage = 0; stage < stages; ++stage) {
    std::vector<Step>& steps = schedule.steps[static_cast<std::size_t>(stage)];
    for (int i = 0; i < micro_batches; ++i) {
      steps.push_back({Work::kForward, stage, i});
    }
    for (int i = micro_batches - 1; i >= 0; --i) {
      steps.push_back({Work::kBackward, stage, i});
    }
  }
  return schedule;
}

Schedule one_forward_one_backward(int stages, int micro_batches) {
  return filled(stages_in_a_row("one_forward_one_backward", stages, micro_batches), [](StageSteps& steps, int) {
    while (steps.more_backwards()) {
      if (steps.more_forwards()) {
        steps.forward();
      }
      steps.backward();
    }
  });
}

// Qi et al. 2024, section 2.2.  The rank of stage s owes up to s weight gradients; with the stages - s micro-batches
// that 1F1B holds there it holds at most `stages`.  The debt is paid at the end, where 1F1B waits for the last input
// gradients to reach the first stage.
Schedule zero_bubble_h1(int stages, int micro_batches) {
  return filled(stages_in_a_row("zero_bubble_h1", stages, micro_batches), [](StageSteps& steps, int stage) {
    while (steps.more_backwards()) {
      if (steps.more_forwards()) {
        steps.forward();
      }
      steps.input_gradient();
      if (steps.owed() > stage) {
        steps.weight_gradient();
      }
    }
    while (steps.more_weight_gradients()) {
      steps.weight_gradient();
    }
  });
}

}  // namespace caravan::parallel

// Whether a schedule can run, and how long it takes.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/parallel/schedule.h"

namespace caravan::parallel {
namespace {

// A broken file can be wrong in every word; the first reasons are enough.
constexpr std::size_t kMostProblems = 20;

// A drawing is for eyes: wider is a mistake in the unit of time.
constexpr double kMostColumns = 100000;

std::string name_of(const Step& step) {
  return fmt::format("{}{}.{}", static_cast<char>(step.work), step.stage, step.micro_batch);
}

bool is_work(Work work) {
  return work == Work::kForward || work == Work::kBackward || work == Work::kInputGradient ||
         work == Work::kWeightGradient;
}

// Faults of the value itself, without which its numbers may index nothing.
std::vector<std::string> malformed(const Schedule& schedule) {
  std::vector<std::string> found;
  const auto ranks = static_cast<int>(schedule.steps.size());
  if (schedule.stages < 1 || schedule.micro_batches < 1 || ranks < 1) {
    found.push_back(fmt::format("at least one stage, micro-batch and rank expected, found {}, {} and {}",
                                schedule.stages, schedule.micro_batches, ranks));
  }
  if (schedule.rank_of_stage.size() != static_cast<std::size_t>(std::max(schedule.stages, 0))) {
    found.push_back(fmt::format("{} stages, but rank_of_stage has {}", schedule.stages, schedule.rank_of_stage.size()));
  }
  for (std::size_t stage = 0; stage < schedule.rank_of_stage.size() && found.size() < kMostProblems; ++stage) {
    if (schedule.rank_of_stage[stage] < 0 || schedule.rank_of_stage[stage] >= ranks) {
      found.push_back(
          fmt::format("stage {} is on rank {}, but there are {} ranks", stage, schedule.rank_of_stage[stage], ranks));
    }
  }
  for (int rank = 0; rank < ranks; ++rank) {
    for (const Step& step : schedule.steps[static_cast<std::size_t>(rank)]) {
      const bool inside = step.stage >= 0 && step.stage < schedule.stages && step.micro_batch >= 0 &&
                          step.micro_batch < schedule.micro_batches && is_work(step.work);
      if (!inside && found.size() < kMostProblems) {
        found.push_back(fmt::format("rank {}: {} is not a step of {} stages and {} micro-batches", rank,
                                    is_work(step.work) ? name_of(step) : "an unknown kind of work", schedule.stages,
                                    schedule.micro_batches));
      }
    }
  }
  return found;
}

// How often each kind of work stands there for one stage and micro-batch.
struct Count {
  int forwards = 0;
  int backwards = 0;
  int input_gradients = 0;
  int weight_gradients = 0;

  int& of(Work work) {
    return work == Work::kForward         ? forwards
           : work == Work::kBackward      ? backwards
           : work == Work::kInputGradient ? input_gradients
                                          : weight_gradients;
  }
  int of(Work work) const { return Count(*this).of(work); }
};

using Counts = std::map<std::pair<int, int>, Count>;  // (stage, micro-batch)

void find_incomplete(const Count& count, int stage, int micro_batch, std::vector<std::string>& found) {
  const auto name = [&](Work work) { return name_of({work, stage, micro_batch}); };
  for (const Work work : {Work::kForward, Work::kBackward, Work::kInputGradient, Work::kWeightGradient}) {
    if (count.of(work) > 1) {
      found.push_back(fmt::format("{} stands {} times", name(work), count.of(work)));
    }
  }
  if (count.forwards == 0) {
    found.push_back(fmt::format("{} is missing", name(Work::kForward)));
  }
  if (count.backwards > 0 && count.input_gradients > 0) {
    found.push_back(fmt::format("{} and {} both stand there, which would take the gradient twice",
                                name(Work::kBackward), name(Work::kInputGradient)));
  }
  if (count.backwards == 0 && count.input_gradients == 0) {
    found.push_back(fmt::format("{} is missing, and there is no {} in its place", name(Work::kBackward),
                                name(Work::kInputGradient)));
  }
  if (count.input_gradients > 0 && count.weight_gradients == 0) {
    found.push_back(fmt::format("{} has no {} after it", name(Work::kInputGradient), name(Work::kWeightGradient)));
  }
  if (count.input_gradients == 0 && count.weight_gradients > 0) {
    found.push_back(fmt::format("{} has no {} before it", name(Work::kWeightGradient), name(Work::kInputGradient)));
  }
}

// Steps on the wrong rank, and steps that stand before those of their own stage that they need.
Counts find_misplaced(const Schedule& schedule, std::vector<std::string>& found) {
  Counts counts;
  for (std::size_t rank = 0; rank < schedule.steps.size(); ++rank) {
    for (const Step& step : schedule.steps[rank]) {
      const int owner = schedule.rank_of_stage[static_cast<std::size_t>(step.stage)];
      if (owner != static_cast<int>(rank)) {
        found.push_back(
            fmt::format("rank {}: {} belongs to rank {}, which has stage {}", rank, name_of(step), owner, step.stage));
      }
      ++counts[{step.stage, step.micro_batch}].of(step.work);
    }
  }
  Counts before;
  for (std::size_t rank = 0; rank < schedule.steps.size(); ++rank) {
    for (const Step& step : schedule.steps[rank]) {
      Count& seen = before[{step.stage, step.micro_batch}];
      const Count& all = counts[{step.stage, step.micro_batch}];
      const Work needed = step.work == Work::kWeightGradient ? Work::kInputGradient : Work::kForward;
      if (step.work != Work::kForward && all.of(needed) > 0 && seen.of(needed) == 0) {
        found.push_back(fmt::format("rank {}: {} stands before {}", rank, name_of(step),
                                    name_of({needed, step.stage, step.micro_batch})));
      }
      ++seen.of(step.work);
    }
  }
  return counts;
}

double duration_of(Work work, const Durations& durations) {
  switch (work) {
    case Work::kForward:
      return durations.forward;
    case Work::kBackward:
      return durations.input_gradient + durations.weight_gradient;
    case Work::kInputGradient:
      return durations.input_gradient;
    case Work::kWeightGradient:
      return durations.weight_gradient;
  }
  return 0.0;
}

// A run against a clock of a schedule in which every step stands once, each rank taking its steps in order and starting
// as soon as it can.
class Clock {
 public:
  struct Span {
    double start = 0.0;
    double end = 0.0;
  };

  Clock(const Schedule& schedule, const Durations& durations)
      : schedule_(schedule),
        spans_(schedule.steps.size()),
        ends_(3 * static_cast<std::size_t>(schedule.stages) * static_cast<std::size_t>(schedule.micro_batches),
              kNotYet) {
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t rank = 0; rank < spans_.size(); ++rank) {
        while (spans_[rank].size() < schedule.steps[rank].size() && take_step(rank, durations)) {
          moved = true;
        }
      }
    }
  }

  const std::vector<Span>& spans(std::size_t rank) const { return spans_[rank]; }  // of the steps taken

  // The step of another stage that `step` waits for and that has not ended; its stage is -1 when there is none.
  Step blocker(const Step& step) const {
    Step needed = step;
    if (step.work == Work::kForward && step.stage > 0) {
      --needed.stage;
    } else if ((step.work == Work::kBackward || step.work == Work::kInputGradient) &&
               step.stage + 1 < schedule_.stages) {
      ++needed.stage;
    } else {
      return {step.work, -1, 0};
    }
    return end(needed) == kNotYet ? needed : Step{step.work, -1, 0};
  }

  double time() const {
    double latest = 0.0;
    for (const std::vector<Span>& spans : spans_) {
      latest = std::max(latest, spans.empty() ? 0.0 : spans.back().end);
    }
    return latest;
  }

 private:
  static constexpr double kNotYet = -1.0;

  // A B and an I are the same to the stage before: a gradient that comes.
  std::size_t place(const Step& step) const {
    const std::size_t kind = step.work == Work::kForward ? 0 : step.work == Work::kWeightGradient ? 2 : 1;
    return (kind * static_cast<std::size_t>(schedule_.stages) + static_cast<std::size_t>(step.stage)) *
               static_cast<std::size_t>(schedule_.micro_batches) +
           static_cast<std::size_t>(step.micro_batch);
  }
  double end(const Step& step) const { return ends_[place(step)]; }

  // What a step needs of its own stage stands before it on this rank, so it has ended when the rank is free.
  bool take_step(std::size_t rank, const Durations& durations) {
    std::vector<Span>& spans = spans_[rank];
    const Step& step = schedule_.steps[rank][spans.size()];
    if (blocker(step).stage >= 0) {
      return false;
    }
    double start = spans.empty() ? 0.0 : spans.back().end;
    if (step.work == Work::kForward && step.stage > 0) {
      start = std::max(start, end({step.work, step.stage - 1, step.micro_batch}));
    } else if (step.work != Work::kForward && step.work != Work::kWeightGradient && step.stage + 1 < schedule_.stages) {
      start = std::max(start, end({step.work, step.stage + 1, step.micro_batch}));
    }
    spans.push_back({start, start + duration_of(step.work, durations)});
    ends_[place(step)] = spans.back().end;
    return true;
  }

  const Schedule& schedule_;
  std::vector<std::vector<Span>> spans_;  // [ranks][steps taken]
  std::vector<double> ends_;              // of each step, or kNotYet
};

void find_deadlock(const Schedule& schedule, std::vector<std::string>& found) {
  const Clock clock(schedule, {});
  for (std::size_t rank = 0; rank < schedule.steps.size(); ++rank) {
    const std::size_t taken = clock.spans(rank).size();
    if (taken == schedule.steps[rank].size()) {
      continue;
    }
    const Step& step = schedule.steps[rank][taken];
    Step needed = clock.blocker(step);
    const int owner = schedule.rank_of_stage[static_cast<std::size_t>(needed.stage)];
    // Whichever of B and I that rank does.
    for (const Step& one : schedule.steps[static_cast<std::size_t>(owner)]) {
      if (one.stage == needed.stage && one.micro_batch == needed.micro_batch && needed.work != Work::kForward &&
          (one.work == Work::kBackward || one.work == Work::kInputGradient)) {
        needed.work = one.work;
      }
    }
    found.push_back(fmt::format("deadlock: rank {} stands at {} and waits for {} of rank {}", rank, name_of(step),
                                name_of(needed), owner));
  }
}

void require_sound(const char* function, const Schedule& schedule, const Durations& durations) {
  for (const double duration : {durations.forward, durations.input_gradient, durations.weight_gradient}) {
    if (!std::isfinite(duration) || duration < 0.0) {
      throw ConfigError(fmt::format("{}: durations of 0 or more expected, found {}", function, duration));
    }
  }
  const std::vector<std::string> found = problems(schedule);
  if (!found.empty()) {
    throw ConfigError(fmt::format("{}: the schedule cannot run: {}{}", function, found[0],
                                  found.size() == 1 ? "" : fmt::format(" (and {} more)", found.size() - 1)));
  }
}

}  // namespace

// Messages between two stages carry no name: both sides must take the micro-batches in one order, forwards and
// gradients each.
void find_crossed_messages(const Schedule& schedule, std::vector<std::string>& found) {
  const auto order = [&](int stage, bool forward) {
    std::vector<int> result;
    const int rank = schedule.rank_of_stage[static_cast<std::size_t>(stage)];
    for (const Step& step : schedule.steps[static_cast<std::size_t>(rank)]) {
      const bool gradient = step.work == Work::kBackward || step.work == Work::kInputGradient;
      if (step.stage == stage && (forward ? step.work == Work::kForward : gradient)) {
        result.push_back(step.micro_batch);
      }
    }
    return result;
  };
  for (int stage = 0; stage + 1 < schedule.stages; ++stage) {
    for (const bool forward : {true, false}) {
      if (order(stage, forward) != order(stage + 1, forward)) {
        found.push_back(fmt::format("stages {} and {} take the {} of the micro-batches in different orders", stage,
                                    stage + 1, forward ? "forwards" : "gradients"));
      }
    }
  }
}

std::vector<std::string> problems(const Schedule& schedule) {
  std::vector<std::string> found = malformed(schedule);
  if (!found.empty()) {
    return found;
  }
  const Counts counts = find_misplaced(schedule, found);
  for (int stage = 0; stage < schedule.stages && found.size() < kMostProblems; ++stage) {
    for (int i = 0; i < schedule.micro_batches && found.size() < kMostProblems; ++i) {
      const auto count = counts.find({stage, i});
      find_incomplete(count == counts.end() ? Count() : count->second, stage, i, found);
    }
  }
  if (found.empty()) {
    find_deadlock(schedule, found);
  }
  if (found.empty()) {
    find_crossed_messages(schedule, found);
  }
  if (found.size() > kMostProblems) {
    found.resize(kMostProblems);
  }
  return found;
}

Simulation simulate(const Schedule& schedule, const Durations& durations) {
  require_sound("simulate", schedule, durations);
  const Clock clock(schedule, durations);
  Simulation result;
  result.time = clock.time();
  for (const std::vector<Step>& steps : schedule.steps) {
    double busy = 0.0;
    int held = 0;
    int peak = 0;
    for (const Step& step : steps) {
      busy += duration_of(step.work, durations);
      if (step.work == Work::kForward) {
        peak = std::max(peak, ++held);
      } else if (step.work != Work::kInputGradient) {  // an I leaves what its W needs
        --held;
      }
    }
    result.bubble.push_back(result.time - busy);
    result.peak_micro_batches.push_back(peak);
  }
  return result;
}

std::string draw(const Schedule& schedule, const Durations& durations) {
  require_sound("draw", schedule, durations);
  const Clock clock(schedule, durations);
  const double columns = clock.time();
  if (columns > kMostColumns) {
    throw ConfigError(
        fmt::format("draw: the drawing would be {:.0f} columns wide, {:.0f} are allowed; give durations "
                    "in a larger unit of time",
                    columns, kMostColumns));
  }
  // The stage is named only where a rank has several.
  const bool one_stage_each = schedule.stages <= static_cast<int>(schedule.steps.size()) &&
                              std::all_of(schedule.steps.begin(), schedule.steps.end(), [](const auto& steps) {
                                return std::all_of(steps.begin(), steps.end(),
                                                   [&](const Step& step) { return step.stage == steps.front().stage; });
                              });
  const auto label = [&](const Step& step) {
    return one_stage_each ? fmt::format("{}{}", static_cast<char>(step.work), step.micro_batch) : name_of(step);
  };
  std::size_t width = 1;
  for (const std::vector<Step>& steps : schedule.steps) {
    for (const Step& step : steps) {
      width = std::max(width, label(step).size());
    }
  }
  const std::size_t ranks = schedule.steps.size();
  const std::size_t digits = std::to_string(ranks - 1).size();
  std::string drawing;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    std::vector<std::string> cells(static_cast<std::size_t>(std::llround(columns)), ".");
    for (std::size_t i = 0; i < schedule.steps[rank].size(); ++i) {
      const Clock::Span span = clock.spans(rank)[i];
      for (long long column = std::llround(span.start); column < std::llround(span.end); ++column) {
        cells[static_cast<std::size_t>(column)] = label(schedule.steps[rank][i]);
      }
    }
    std::string line = fmt::format("rank {:>{}}:", rank, digits);
    for (const std::string& cell : cells) {
      line += fmt::format(" {:<{}}", cell, width);
    }
    drawing += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return drawing;
}

}  // namespace caravan::parallel

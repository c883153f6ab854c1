// Schedules as text, both ways.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/parallel/schedule.h"

namespace caravan::parallel {
namespace {

// Far above any real pipeline, and small enough that a list of stages is no burden.
constexpr int kMostStages = 1 << 16;
constexpr int kMostMicroBatches = 1 << 24;

[[noreturn]] void refuse(std::size_t line, std::string_view word, const std::string& reason) {
  throw ConfigError(fmt::format("schedule, line {}, word \"{}\": {}", line, printable(word, 40), reason));
}

// The digits at the front of `text`, taken away from it, or -1.
int take_number(std::string_view& text) {
  int number = -1;
  if (text.empty() || text[0] < '0' || text[0] > '9') {  // from_chars would take a sign
    return -1;
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) {
    return -1;
  }
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

Step parse_step(std::size_t line, std::string_view word) {
  const char letter = word[0];
  if (letter != 'F' && letter != 'B' && letter != 'I' && letter != 'W') {
    refuse(line, word, "a step begins with F, B, I or W, as in F0.3 (forward of stage 0, micro-batch 3)");
  }
  std::string_view rest = word.substr(1);
  const int stage = take_number(rest);
  const bool dot = !rest.empty() && rest[0] == '.';
  if (dot) {
    rest.remove_prefix(1);
  }
  const int micro_batch = take_number(rest);
  if (stage < 0 || !dot || micro_batch < 0 || !rest.empty()) {
    refuse(line, word, "a step is a letter, the stage, a dot and the micro-batch, as in F0.3");
  }
  if (stage >= kMostStages || micro_batch >= kMostMicroBatches) {
    refuse(line, word, fmt::format("stages end at {} and micro-batches at {}", kMostStages - 1, kMostMicroBatches - 1));
  }
  return {static_cast<Work>(letter), stage, micro_batch};
}

// The words of a line up to a '#'.
std::vector<std::string_view> words_of(std::string_view line) {
  constexpr std::string_view kSpaces = " \t\r";
  line = line.substr(0, line.find('#'));
  std::vector<std::string_view> words;
  while (true) {
    line.remove_prefix(std::min(line.find_first_not_of(kSpaces), line.size()));
    if (line.empty()) {
      return words;
    }
    const std::size_t length = std::min(line.find_first_of(kSpaces), line.size());
    words.push_back(line.substr(0, length));
    line.remove_prefix(length);
  }
}

}  // namespace

std::string print(const Schedule& schedule) {
  std::string text;
  for (std::size_t rank = 0; rank < schedule.steps.size(); ++rank) {
    text += fmt::format("rank {}:", rank);
    for (const Step& step : schedule.steps[rank]) {
      text += fmt::format(" {}{}.{}", static_cast<char>(step.work), step.stage, step.micro_batch);
    }
    text += "\n";
  }
  return text;
}

Schedule parse(const std::string& text) {
  Schedule schedule;
  int stages = 0;
  int micro_batches = 0;
  std::string_view rest = text;
  for (std::size_t line = 1; !rest.empty(); ++line) {
    const std::size_t length = std::min(rest.find('\n'), rest.size());
    const std::vector<std::string_view> words = words_of(rest.substr(0, length));
    rest.remove_prefix(std::min(length + 1, rest.size()));
    if (words.empty()) {
      continue;
    }
    const std::string expected = fmt::format("rank {}:", schedule.steps.size());
    if (words[0] != "rank" || words.size() < 2 || fmt::format("rank {}", words[1]) != expected) {
      refuse(line, words[0] == "rank" && words.size() > 1 ? words[1] : words[0],
             fmt::format("the line begins with \"{}\"; ranks come in order, a line each", expected));
    }
    std::vector<Step>& steps = schedule.steps.emplace_back();
    for (std::size_t i = 2; i < words.size(); ++i) {
      steps.push_back(parse_step(line, words[i]));
      stages = std::max(stages, steps.back().stage + 1);
      micro_batches = std::max(micro_batches, steps.back().micro_batch + 1);
    }
  }
  if (stages == 0) {
    throw ConfigError("schedule: there is no step in it; expected lines such as \"rank 0: F0.0 B0.0\"");
  }
  schedule.stages = stages;
  schedule.micro_batches = micro_batches;
  // A stage that stands on several ranks belongs to the first; one that stands nowhere to rank 0.  problems() tells.
  schedule.rank_of_stage.assign(static_cast<std::size_t>(stages), 0);
  for (std::size_t rank = schedule.steps.size(); rank-- > 0;) {
    for (const Step& step : schedule.steps[rank]) {
      schedule.rank_of_stage[static_cast<std::size_t>(step.stage)] = static_cast<int>(rank);
    }
  }
  return schedule;
}

}  // namespace caravan::parallel

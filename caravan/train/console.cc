#include <fmt/format.h>

#include <array>
#include <cmath>
#include <ostream>

#include "caravan/base/progress.h"
#include "caravan/base/text.h"
#include "caravan/train/metrics.h"

namespace caravan::train {

namespace {

enum class Color { kRed, kGreen, kYellow, kCyan, kBlue, kMagenta };

// torchtitan colours the same fields.
std::string painted(const std::string& text, Color color, bool wanted) {
  constexpr std::array<int, 6> kCodes = {31, 32, 33, 36, 34, 35};
  return wanted ? fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<std::size_t>(color)], text) : text;
}

std::string rounded(double number) {
  return std::isfinite(number) && std::abs(number) < 1e15 ? grouped(std::llround(number)) : fmt::format("{}", number);
}

}  // namespace

struct Console::State {
  bool terminal;
  bool color;
  std::int64_t first_step;
  std::int64_t total_steps;
  std::int64_t log_freq;
  ProgressBar bar;  // off a terminal it only keeps the pace and prints nothing of itself
};

Console::Console(std::ostream& out, bool terminal, bool color, std::int64_t first_step, std::int64_t total_steps,
                 std::int64_t log_freq, std::function<double()> clock, int columns)
    : state_(new State{terminal, color, first_step, total_steps, log_freq,
                       ProgressBar(out, terminal, "training", total_steps, 1e300, std::move(clock), columns)}) {
  state_->bar.update(first_step - 1);
}

Console::~Console() = default;

void Console::step(const StepMetrics& metrics) {
  State& state = *state_;
  state.bar.update(metrics.step,
                   fmt::format("loss {:.4f}  {} tok/s", metrics.loss, rounded(metrics.tokens_per_second)));
  const bool due =
      metrics.step == state.first_step || metrics.step % state.log_freq == 0 || metrics.step == state.total_steps;
  if (state.terminal || !due) {
    return;
  }
  const auto paint = [&](const std::string& text, Color color) { return painted(text, color, state.color); };
  state.bar.line(fmt::format("{}  {}  {}  {}  {}  {}  lr: {:.3g}  eta: {}",
                             paint(fmt::format("step: {}", metrics.step), Color::kRed),
                             paint(fmt::format("loss: {:.5f}", metrics.loss), Color::kGreen),
                             paint(fmt::format("grad_norm: {:.4f}", metrics.grad_norm), Color::kYellow),
                             paint(fmt::format("memory: {:.2f}GiB", metrics.memory_gib), Color::kCyan),
                             paint(fmt::format("tps: {}", rounded(metrics.tokens_per_second)), Color::kBlue),
                             paint(fmt::format("mfu: {:.2f}%", 100.0 * metrics.mfu), Color::kMagenta), metrics.lr,
                             clock_text(state.bar.seconds_left())));
}

void Console::validation(const ValidationMetrics& metrics) {
  std::string text = fmt::format("loss: {:.5f}", metrics.loss);
  if (metrics.bits_per_byte) {
    text += fmt::format("  bits/byte: {:.4f}", *metrics.bits_per_byte);
  }
  line(fmt::format("{}  {}  targets: {}  time: {}",
                   painted(fmt::format("validate step: {}", metrics.step), Color::kRed, state_->color),
                   painted(text, Color::kGreen, state_->color), grouped(metrics.targets), clock_text(metrics.seconds)));
}

void Console::sample(std::int64_t step, const std::string& prompt, const std::string& text) {
  // Each line of the sample is set in, so that it is told apart from the log's own.
  std::string block;
  for (const char c : terminal_text(prompt + text)) {
    block += c;
    block += c == '\n' ? "  " : "";
  }
  line(fmt::format("{}\n  {}", painted(fmt::format("sample step: {}", step), Color::kRed, state_->color), block));
}

void Console::line(const std::string& text) {
  state_->bar.line(text);
}

void Console::finish() {
  if (state_->terminal) {
    state_->bar.finish();
  }
}

}  // namespace caravan::train

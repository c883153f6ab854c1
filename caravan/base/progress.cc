#include "caravan/base/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ostream>

#include "caravan/base/text.h"

namespace caravan {

namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr std::size_t kNarrowestBar = 10;
constexpr std::size_t kWidestBar = 40;
constexpr const char* kClearLine = "\r\x1b[K";

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string clock_text(double seconds) {
  // A run of more than 99,999 hours has no end worth printing.
  if (!(seconds >= 0.0) || seconds >= 3600.0 * 1e5) {
    return "?";
  }
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t hours = whole / 3600, minutes = whole / 60 % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60)
                   : fmt::format("{}:{:02}", minutes, whole % 60);
}

int terminal_columns() {
  if (const char* columns = std::getenv("COLUMNS")) {
    int width = 0;
    const char* end = columns + std::strlen(columns);
    const auto [stop, error] = std::from_chars(columns, end, width);
    if (error == std::errc{} && stop == end && width > 0) {
      return width;
    }
  }
  for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
    winsize size{};
    if (::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
      return size.ws_col;
    }
  }
  return 80;
}

std::string terminal_text(const std::string& text) {
  std::string shown;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F, in UTF-8 c2 80 to c2 9f, are control characters too.
    const bool high_control = byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    const bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    shown += control || high_control ? '?' : text[i];
    i += high_control ? 1 : 0;
  }
  return shown;
}

ProgressBar::ProgressBar(std::ostream& out, bool terminal, std::string label, std::int64_t total, double line_seconds,
                         std::function<double()> clock, int columns)
    : out_(out),
      terminal_(terminal),
      label_(std::move(label)),
      total_(total),
      line_seconds_(line_seconds),
      clock_(clock ? std::move(clock) : steady_seconds),
      columns_(columns) {}

void ProgressBar::update(std::int64_t done, const std::string& note) {
  const double now = clock_();
  if (first_seconds_ < 0.0) {
    first_seconds_ = now;
    first_done_ = done;
  }
  done_ = done;
  note_ = note;
  last_seconds_ = now;
  const double pause = terminal_ ? kRedrawSeconds : line_seconds_;
  // Off a terminal the first line waits: short work prints its end alone.
  const double since = drawn_seconds_ < 0.0 && !terminal_ ? first_seconds_ : drawn_seconds_;
  if (since < 0.0 || now - since >= pause) {
    draw();
    drawn_seconds_ = now;
  }
}

void ProgressBar::line(const std::string& text) {
  if (drawn_) {
    out_ << kClearLine;
    drawn_ = false;
  }
  out_ << text << "\n";
  if (terminal_ && first_seconds_ >= 0.0 && !finished_) {
    draw();
  }
  out_.flush();
}

void ProgressBar::finish() {
  if (finished_ || first_seconds_ < 0.0) {
    return;
  }
  finished_ = true;
  draw();
  if (terminal_) {
    out_ << "\n";
    drawn_ = false;
  }
  out_.flush();
}

double ProgressBar::seconds_left() const {
  if (done_ >= total_) {
    return 0.0;
  }
  const std::int64_t progress = done_ - first_done_;
  return progress <= 0
             ? -1.0
             : (last_seconds_ - first_seconds_) / static_cast<double>(progress) * static_cast<double>(total_ - done_);
}

// "training [=====>    ] 50/100  0:12 left  loss 3.21": the note gives way first, then the bar.
std::string ProgressBar::drawing(std::size_t columns) const {
  const double share =
      total_ > 0 ? std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0) : 1.0;
  const double left = seconds_left();
  std::string behind = fmt::format("{}/{}", grouped(done_), grouped(total_));
  if (finished_) {
    behind += fmt::format("  {}", clock_text(last_seconds_ - first_seconds_));
  } else if (left >= 0.0) {
    behind += fmt::format("  {} left", clock_text(left));
  }
  const std::size_t fixed = label_.size() + 1 + behind.size();
  const std::string note = note_.empty() ? "" : "  " + note_;
  const std::size_t frame = 3;  // "[", "]" and a blank
  std::size_t bar = 0;
  if (terminal_ && fixed + note.size() + frame + kNarrowestBar <= columns) {
    bar = std::min(kWidestBar, columns - fixed - note.size() - frame);
  }
  std::string text = label_ + " ";
  if (bar > 0) {
    const auto full = static_cast<std::size_t>(share * static_cast<double>(bar));
    text += "[" + std::string(full, '=') + (full < bar ? ">" + std::string(bar - full - 1, ' ') : "") + "] ";
  }
  text += behind + note;
  return terminal_ ? text.substr(0, columns) : text;
}

void ProgressBar::draw() {
  if (!terminal_) {
    out_ << drawing(0) << "\n";
  } else {
    // The last column stays free: some terminals wrap when it is written.
    const int columns = columns_ > 0 ? columns_ : terminal_columns();
    out_ << kClearLine << drawing(static_cast<std::size_t>(std::max(columns - 1, 1)));
    drawn_ = true;
  }
  out_.flush();
}

}  // namespace caravan

// A progress bar for long work: drawn in place on a terminal, a plain line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>

namespace caravan {

// "1:02:03", "4:05", "0:07"
std::string clock_text(double seconds);

// Characters that fit on a line of the terminal: COLUMNS, else what the terminal of standard output or error says, else
// 80.
int terminal_columns();

// Text from a model or a file as a terminal may print it: control characters, which could move the cursor or change
// the terminal's state, as "?", but for line ends and tabs.
std::string terminal_text(const std::string& text);

class ProgressBar {
 public:
  // `label`: what is done; `total`: when it is done; `clock`: seconds since any moment (nothing: a steady clock).
  // Off a terminal a line is printed at most every `line_seconds`, and at the end.  `columns`: the width (0: asked for
  // at each drawing, since windows change).
  ProgressBar(std::ostream& out, bool terminal, std::string label, std::int64_t total, double line_seconds = 10.0,
              std::function<double()> clock = {}, int columns = 0);

  // Redraws at most ten times a second.  `note` (ASCII) stands behind the bar.  Time left comes from the pace since the
  // first call.
  void update(std::int64_t done, const std::string& note = {});
  // Prints a line of text above the bar.
  void line(const std::string& text);
  // Draws the last state and ends the line.
  void finish();
  // Seconds to go at the pace since the first update, or -1 when nothing is known yet.
  double seconds_left() const;

 private:
  void draw();
  std::string drawing(std::size_t columns) const;

  std::ostream& out_;
  bool terminal_;
  std::string label_;
  std::int64_t total_;
  double line_seconds_;
  std::function<double()> clock_;
  int columns_;
  std::int64_t done_ = 0;
  std::int64_t first_done_ = 0;
  double first_seconds_ = -1.0;
  double last_seconds_ = -1.0;   // of the last update
  double drawn_seconds_ = -1.0;  // of the last drawing or line
  std::string note_;
  bool drawn_ = false;  // the cursor stands on a drawn bar
  bool finished_ = false;
};

}  // namespace caravan

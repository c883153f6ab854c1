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

class ProgressBar {
 public:
  // `label`: what is done; `total`: when it is done; `clock`: seconds since any moment (nothing: a steady clock).
  // Off a terminal a line is printed at most every `line_seconds`, and at the end.
  ProgressBar(std::ostream& out, bool terminal, std::string label, std::int64_t total, double line_seconds = 10.0,
              std::function<double()> clock = {});

  // Redraws at most ten times a second.  `note` stands behind the bar.  Time left comes from the pace since the first
  // call.
  void update(std::int64_t done, const std::string& note = {});
  // Prints a line of text above the bar.
  void line(const std::string& text);
  // Draws the last state and ends the line.
  void finish();

 private:
  void draw(bool last);

  std::ostream& out_;
  bool terminal_;
  std::string label_;
  std::int64_t total_;
  double line_seconds_;
  std::function<double()> clock_;
  std::int64_t done_ = 0;
  std::int64_t first_done_ = 0;
  double first_seconds_ = -1.0;
  double drawn_seconds_ = -1.0;
  std::string note_;
  bool drawn_ = false;
};

}  // namespace caravan

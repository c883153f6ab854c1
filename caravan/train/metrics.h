// What a run tells about itself: a line for every step in metrics.jsonl, TensorBoard events, and the console.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace caravan::train {

// One training step.
struct StepMetrics {
  std::int64_t step = 0;   // from 1
  double loss = 0.0;       // mean over the global batch's targets, nats
  double grad_norm = 0.0;  // before clipping
  double lr = 0.0;         // that the step used
  double tokens_per_second = 0.0;
  double mfu = 0.0;                // share of the machine's measured GEMM peak, 0 to 1
  double memory_gib = 0.0;         // peak of the allocator so far
  std::int64_t n_tokens_seen = 0;  // ids that were not padding, over all ranks and steps
  double epoch = 0.0;
  std::optional<double> loss_scale = std::nullopt;  // of runs in float16
  double seconds = 0.0;                             // of the step
  double data_seconds = 0.0;                        // of it, waited for data
};

struct ValidationMetrics {
  std::int64_t step = 0;
  double loss = 0.0;  // mean over all targets
  std::optional<double> bits_per_byte;
  std::int64_t targets = 0;
  double seconds = 0.0;
};

// Appends to metrics.jsonl and a TensorBoard event file.  Each line is written whole, and one JSON object:
//   {"step", "loss", "grad_norm", "lr", "tokens_per_second", "mfu", "memory_gib", "n_tokens_seen", "epoch", "seconds",
//    "data_seconds", "loss_scale" (of runs in float16)}
//   {"step", "validation_loss", "validation_bits_per_byte" (if known), "validation_targets", "validation_seconds"}
//   {"step", "sample": {"prompt", "text"}}
// Numbers that are not finite are null.  A resumed run first cuts the lines of steps that it will repeat.
class MetricsFiles {
 public:
  // `first_step`: lines of this step and later ones, and what is no whole line, are removed.  `tensorboard`: a folder,
  // made if it is missing; empty for none.  Throws FileError.
  MetricsFiles(const std::filesystem::path& jsonl, const std::filesystem::path& tensorboard, std::int64_t first_step);
  ~MetricsFiles();
  MetricsFiles(const MetricsFiles&) = delete;

  // What the system does not take (a full disk) is kept for flush().
  void step(const StepMetrics& metrics);
  void validation(const ValidationMetrics& metrics);
  void sample(std::int64_t step, const std::string& prompt, const std::string& text);
  // Writes what was kept and makes everything durable.  Throws FileError when the system refuses; it may be asked
  // again.
  void flush();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The console of a run: a progress bar with time left on a terminal, torchtitan-like lines elsewhere.
class Console {
 public:
  // `terminal`: whether `out` is one; `total_steps`: where the bar ends; `first_step`: where it begins.  Elsewhere a
  // line is printed at the first step, every `log_freq` steps and at the last one.  `clock`, `columns`: as
  // ProgressBar's.
  Console(std::ostream& out, bool terminal, bool color, std::int64_t first_step, std::int64_t total_steps,
          std::int64_t log_freq, std::function<double()> clock = {}, int columns = 0);
  ~Console();
  Console(const Console&) = delete;

  void step(const StepMetrics& metrics);
  void validation(const ValidationMetrics& metrics);
  void sample(std::int64_t step, const std::string& prompt, const std::string& text);
  // A line of its own, above the bar.
  void line(const std::string& text);
  // Ends the bar.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace caravan::train

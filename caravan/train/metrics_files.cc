#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/train/append_file.h"
#include "caravan/train/metrics.h"
#include "caravan/train/tensorboard.h"

namespace caravan::train {

namespace {

// Whether a line of an earlier run stays: it is whole and tells of a step before `first_step`.
bool stays(std::string_view line, std::int64_t first_step, const std::string& source) {
  try {
    const Json json = parse_json(line, source);
    const auto step = json.is_object() ? json.find("step") : json.end();
    return step != json.end() && step->is_number_integer() && step->get<std::int64_t>() < first_step;
  } catch (const FormatError&) {
    return false;
  }
}

// Removes the lines of steps from `first_step` on, and what a crash left unfinished.
void cut(const std::filesystem::path& path, std::int64_t first_step) {
  std::error_code code;
  if (!std::filesystem::exists(path, code)) {
    return;
  }
  const MappedFile file = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  std::string kept;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) {
      break;
    }
    if (stays(text.substr(begin, end - begin), first_step, path.string())) {
      kept += text.substr(begin, end + 1 - begin);
    }
    begin = end + 1;
  }
  if (kept.size() < text.size()) {
    write_text_file(path, kept);
  }
}

// NaN and infinity become null, broken UTF-8 (a sample cut inside a letter) the replacement character.
std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// The text with its broken UTF-8 replaced.
std::string repaired(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

// As a Markdown block that shows every character as it is.
std::string indented(const std::string& text) {
  std::string block = "    ";
  for (const char c : repaired(text)) {
    block += c;
    block += c == '\n' ? "    " : "";
  }
  return block;
}

}  // namespace

struct MetricsFiles::State {
  std::unique_ptr<AppendFile> lines;
  std::unique_ptr<EventFile> events;

  void line(const Json& json) {
    try {
      lines->append(line_of(json));
    } catch (const FileError&) {  // flush() tries again and tells
    }
  }
};

MetricsFiles::MetricsFiles(const std::filesystem::path& jsonl, const std::filesystem::path& tensorboard,
                           std::int64_t first_step)
    : state_(std::make_unique<State>()) {
  cut(jsonl, first_step);
  state_->lines = std::make_unique<AppendFile>(jsonl);
  if (!tensorboard.empty()) {
    state_->events = std::make_unique<EventFile>(tensorboard, first_step);
  }
}

MetricsFiles::~MetricsFiles() = default;

void MetricsFiles::step(const StepMetrics& metrics) {
  Json json = {{"step", metrics.step},
               {"loss", metrics.loss},
               {"grad_norm", metrics.grad_norm},
               {"lr", metrics.lr},
               {"tokens_per_second", metrics.tokens_per_second},
               {"mfu", metrics.mfu},
               {"memory_gib", metrics.memory_gib},
               {"n_tokens_seen", metrics.n_tokens_seen},
               {"epoch", metrics.epoch},
               {"seconds", metrics.seconds},
               {"data_seconds", metrics.data_seconds}};
  if (metrics.loss_scale) {
    json["loss_scale"] = *metrics.loss_scale;
  }
  state_->line(json);
  if (state_->events != nullptr) {
    // torchtitan's names.
    const double share = metrics.seconds > 0.0 ? metrics.data_seconds / metrics.seconds : 0.0;
    state_->events->scalars(metrics.step, {{"loss_metrics/global_avg_loss", metrics.loss},
                                           {"grad_norm", metrics.grad_norm},
                                           {"lr", metrics.lr},
                                           {"throughput(tps)", metrics.tokens_per_second},
                                           {"mfu(%)", 100.0 * metrics.mfu},
                                           {"memory/max_active(GiB)", metrics.memory_gib},
                                           {"n_tokens_seen", static_cast<double>(metrics.n_tokens_seen)},
                                           {"time_metrics/end_to_end(s)", metrics.seconds},
                                           {"time_metrics/data_loading(s)", metrics.data_seconds},
                                           {"time_metrics/data_loading(%)", 100.0 * share},
                                           {"epoch", metrics.epoch}});
  }
}

void MetricsFiles::validation(const ValidationMetrics& metrics) {
  Json json = {{"step", metrics.step}, {"validation_loss", metrics.loss}};
  if (metrics.bits_per_byte) {
    json["validation_bits_per_byte"] = *metrics.bits_per_byte;
  }
  json["validation_targets"] = metrics.targets;
  json["validation_seconds"] = metrics.seconds;
  state_->line(json);
  if (state_->events != nullptr) {
    std::vector<std::pair<std::string, double>> values = {{"validation_metrics/loss", metrics.loss}};
    if (metrics.bits_per_byte) {
      values.emplace_back("validation_metrics/bits_per_byte", *metrics.bits_per_byte);
    }
    state_->events->scalars(metrics.step, values);
  }
}

void MetricsFiles::sample(std::int64_t step, const std::string& prompt, const std::string& text) {
  state_->line({{"step", step}, {"sample", {{"prompt", prompt}, {"text", text}}}});
  if (state_->events != nullptr) {
    constexpr std::size_t kTagBytes = 60;
    std::string tag = repaired(prompt.substr(0, kTagBytes));
    std::replace(tag.begin(), tag.end(), '\n', ' ');
    state_->events->text(step, "samples/" + tag, indented(prompt + text));
  }
}

void MetricsFiles::flush() {
  state_->lines->retry();
  state_->lines->sync();
  if (state_->events != nullptr) {
    state_->events->sync();
  }
}

}  // namespace caravan::train

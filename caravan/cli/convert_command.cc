#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/base/progress.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/shared_options.h"
#include "caravan/model_io/convert.h"
#include "caravan/train/resume.h"

namespace caravan::cli {

namespace {

std::atomic<bool> stop_asked{false};

extern "C" void on_convert_signal(int /*signal*/) {
  stop_asked = true;
}

// While it lives, the first Ctrl-C or SIGTERM asks for an end, so that what was staged is cleared away; the second one
// has its usual effect.
class StopSignals {
 public:
  StopSignals() {
    stop_asked = false;
    struct sigaction action {};
    action.sa_handler = on_convert_signal;
    action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
    sigaction(SIGINT, &action, &interrupt_);
    sigaction(SIGTERM, &action, &terminate_);
  }
  ~StopSignals() {
    sigaction(SIGINT, &interrupt_, nullptr);
    sigaction(SIGTERM, &terminate_, nullptr);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  struct sigaction interrupt_ {};
  struct sigaction terminate_ {};
};

// One bar a phase, on a terminal or for work that takes a while.
class Phases {
 public:
  Phases(Streams streams, std::string target) : streams_(streams), target_(std::move(target)) {}
  ~Phases() { end(); }
  Phases(const Phases&) = delete;
  Phases& operator=(const Phases&) = delete;

  void operator()(const char* phase, std::int64_t done, std::int64_t total) {
    if (stop_asked) {
      throw InputError(fmt::format("convert: stopped; {} is as it was", target_));
    }
    constexpr std::int64_t kLong = 1'000'000'000;
    const bool terminal = isatty(STDERR_FILENO) != 0 && &streams_.err == &std::cerr;
    if (!terminal && total < kLong) {
      return;
    }
    if (phase != phase_) {
      end();
      phase_ = phase;
      bar_ = std::make_unique<ProgressBar>(streams_.err, terminal, phase, total);
    }
    bar_->update(done, fmt::format("{} of {}", human_bytes(done), human_bytes(total)));
  }

  void end() {
    if (bar_) {
      bar_->finish();
      bar_.reset();
    }
  }

 private:
  Streams streams_;
  std::string target_;
  const char* phase_ = nullptr;
  std::unique_ptr<ProgressBar> bar_;
};

// Replacing a directory removes it, and with it a source that is the target or lies in it.
void refuse_target_over_source(const std::filesystem::path& source, const std::filesystem::path& target) {
  std::error_code ignored;
  const std::filesystem::path root = std::filesystem::weakly_canonical(target, ignored);
  const std::filesystem::path inner = std::filesystem::weakly_canonical(source, ignored);
  for (std::filesystem::path at = inner; !root.empty() && at != at.parent_path(); at = at.parent_path()) {
    if (at == root) {
      throw InputError(
          fmt::format("convert: the target {} holds the source {}; write beside it", target.string(), source.string()));
    }
  }
}

model_io::Dialect dialect_of(const ParsedOptions& options) {
  const std::string to = options.text("--to");
  if (to == "te") {
    return model_io::Dialect::kTransformerEngine;
  }
  const bool gguf = to == "gguf" || (to.empty() && options.path("TARGET").extension() == ".gguf");
  return gguf ? model_io::Dialect::kGguf : model_io::Dialect::kHuggingFace;
}

// Tokenizer and generation settings lie beside a model's weights, and in the folder of a checkpoint's run.
std::filesystem::path companions_of(const model_io::ModelFiles& files) {
  switch (files.kind) {
    case model_io::SourceKind::kGguf:
      return {};
    case model_io::SourceKind::kCheckpoint:
      return std::filesystem::absolute(files.path / "").lexically_normal().parent_path().parent_path().parent_path() /
             "assets";
    default:
      return files.path;
  }
}

std::string types_text(const model_io::ConvertReport& report) {
  std::vector<std::string> parts;
  for (const auto& [name, count] : report.types) {
    parts.push_back(fmt::format("{} {}", count, name));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string verification_text(const model_io::Verification& found) {
  if (found.exact) {
    return fmt::format("checked: all {} weights are equal, and hidden states and logits at {} positions\n",
                       human_count(found.weights), found.positions);
  }
  constexpr double kPercent = 100.0;
  return fmt::format(
      "checked: {} weights, no part further away than {:.2g} % of its length ({}); at {} positions hidden states "
      "within {:.2g} % and logits within {:.2g} % of theirs\n",
      human_count(found.weights), kPercent * found.weight_error, found.worst_part, found.positions,
      kPercent * found.hidden_error, kPercent * found.logit_error);
}

int run_convert(const ParsedOptions& options, Streams streams) {
  const std::filesystem::path source = options.path("SOURCE");
  const std::filesystem::path target = options.path("TARGET");
  refuse_target_over_source(source, target);
  const model_io::ModelFiles files =
      train::is_checkpoint(source) ? train::open_checkpoint_files(source) : model_io::open_model(source);
  print_warnings(streams, files.config.warnings);
  model_io::ConvertOptions convert;
  convert.to = dialect_of(options);
  if (options.has("--dtype")) {
    convert.type = quant::parse_block_type(options.text("--dtype"));
  }
  convert.max_shard_bytes = options.integer("--max-shard-bytes").value();
  convert.replace = options.has("--replace");
  convert.dialect = options.text("--config-dialect") == "rope_parameters" ? model_io::RopeDialect::kRopeParameters
                                                                          : model_io::RopeDialect::kRopeScaling;
  convert.companions = companions_of(files);
  convert.verify = !options.has("--no-verify");
  ops::Context ctx = ops::make_context({.backend = ops::Backend::kCpu,
                                        .dry_run = false,
                                        .threads = static_cast<int>(options.integer("--threads").value_or(0)),
                                        .memory_capacity = 0});
  const StopSignals signals;
  Phases phases(streams, target.string());
  convert.progress = std::ref(phases);
  const model_io::ConvertReport report = model_io::convert_model(ctx, files, target, convert);
  phases.end();
  for (const std::string& note : report.notes) {
    streams.err << "caravan: note: " << note << "\n";
  }
  streams.out << fmt::format("{}: {} parameters, {} ({}), from {}\n", target.string(),
                             human_count(parameter_count(model::parameter_specs(files.config.model))),
                             human_bytes(report.bytes), types_text(report), to_string(files.kind));
  if (report.verification) {
    streams.out << verification_text(*report.verification);
  }
  return 0;
}

}  // namespace

Command convert_command() {
  CommandSpec spec;
  spec.name = "convert";
  spec.summary = "write a model in another format or type";
  spec.description =
      "Reads a Hugging Face directory, a GGUF file, a directory of TransformerEngine's names or a checkpoint of a "
      "training (its step-N directory), told apart by content, and writes a Hugging Face directory that transformers "
      "loads, a GGUF file that llama.cpp loads, or TransformerEngine's names, tokenizer and chat template included. "
      "Weights go through tensor by tensor. The result is opened again and compared with the source before it takes "
      "the target's place: weight by weight, then hidden states and logits of a short input. The target is complete or "
      "not there at all; free space is checked before the first byte.";
  spec.options = {
      {.name = "SOURCE",
       .value_name = "",
       .kind = OptionKind::kFile,
       .help = "Hugging Face model directory, GGUF file, or checkpoint",
       .required = true,
       .positional = true},
      {.name = "TARGET",
       .value_name = "",
       .kind = OptionKind::kFile,
       .help = "directory or GGUF file to write",
       .required = true,
       .positional = true},
      {.name = "--to",
       .value_name = "FORMAT",
       .kind = OptionKind::kChoice,
       .help = "hf: Hugging Face's directory; gguf: llama.cpp's file; te: TransformerEngine's names in a directory",
       .default_value = "",
       .default_note = "gguf where TARGET ends with .gguf, else hf",
       .choices = {"hf", "gguf", "te"}},
      {.name = "--dtype",
       .value_name = "TYPE",
       .kind = OptionKind::kChoice,
       .help = "type of the written weights; those with a q are for GGUF, whose vectors are always f32",
       .default_value = "",
       .default_note = "the source's, f32 for its blocks",
       .choices = {"f32", "bf16", "f16", "f64", "q8_0", "q6_k", "q5_0", "q5_1", "q4_k", "q4_0", "q4_1"}},
      {.name = "--no-verify",
       .value_name = "",
       .kind = OptionKind::kFlag,
       .help = "do not compare the result with the source"},
  };
  for (OptionSpec& option : writing_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.examples = {"caravan convert DIR DIR-bf16 --dtype bf16", "caravan convert DIR model.gguf --dtype q4_k",
                   "caravan convert model.gguf DIR --dtype bf16"};
  return {spec, run_convert};
}

}  // namespace caravan::cli

#include "caravan/cli/shared_options.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/ops/trace.h"

namespace caravan::cli {

OptionSpec model_option() {
  return {.name = "--model",
          .value_name = "MODEL",
          .kind = OptionKind::kFile,
          .help = "Hugging Face model directory, or a GGUF file",
          .required = true};
}

OptionSpec compute_dtype_option(const std::string& default_value) {
  return {
      .name = "--dtype",
      .value_name = "TYPE",
      .kind = OptionKind::kChoice,
      .help =
          "type to compute in: f32, bf16 and f64 (on the reference backend, or a GPU) convert the weights; native "
          "computes in f32 from matrices as they are stored; auto is native for a GGUF file with quantised matrices, "
          "else f32; on a GPU native is not there and auto is bf16",
      .default_value = default_value,
      .choices = {"auto", "native", "f32", "bf16", "f64"}};
}

std::vector<OptionSpec> numerics_options() {
  return {
      {.name = "--device",
       .value_name = "DEVICE",
       .kind = OptionKind::kText,
       .help = "where to compute: cpu, cuda (the first GPU) or cuda:N",
       .default_value = "cpu"},
      {.name = "--backend",
       .value_name = "NAME",
       .kind = OptionKind::kChoice,
       .help = "on the processor: cpu is oneDNN and SIMD kernels; ref is plain loops, slow and exact",
       .default_value = "cpu",
       .choices = {"cpu", "ref"}},
      {.name = "--norm-rounding",
       .value_name = "RULE",
       .kind = OptionKind::kChoice,
       .help = "hf rounds before the norm's weight, as transformers; fused rounds once, as TransformerEngine",
       .default_value = "hf",
       .choices = {"hf", "fused"}},
      {.name = "--rope-rounding",
       .value_name = "RULE",
       .kind = OptionKind::kChoice,
       .help = "hf rounds cos and sin to the activations' type, as transformers; f32 keeps them",
       .default_value = "hf",
       .choices = {"hf", "f32"}},
      {.name = "--rope-pairing",
       .value_name = "ORDER",
       .kind = OptionKind::kChoice,
       .help = "order of a head's elements while computing; weights are permuted on load, native ones keep the file's",
       .default_value = "half",
       .choices = {"half", "interleaved"}},
  };
}

OptionSpec json_option() {
  return {.name = "--json", .value_name = "", .kind = OptionKind::kFlag, .help = "print one JSON object"};
}

std::vector<OptionSpec> writing_options() {
  return {
      {.name = "--max-shard-bytes",
       .value_name = "N",
       .kind = OptionKind::kInteger,
       .help = "cut the weights into files of at most so many bytes",
       .default_value = "5000000000",
       .minimum = 1},
      {.name = "--config-dialect",
       .value_name = "NAME",
       .kind = OptionKind::kChoice,
       .help =
           "how config.json says the rotary embedding: rope_scaling is read by every transformers, rope_parameters by "
           "5 and later",
       .default_value = "rope_scaling",
       .choices = {"rope_scaling", "rope_parameters"}},
      {.name = "--replace", .value_name = "", .kind = OptionKind::kFlag, .help = "replace TARGET if it exists"},
  };
}

DType dtype_of(const ParsedOptions& options, const std::string& name) {
  const std::string text = options.text(name);
  if (text == "native" || text == "auto") {
    return DType::kF32;
  }
  const std::optional<DType> dtype = parse_dtype(text);
  if (!dtype) {
    throw InputError(fmt::format("{}: there is no type \"{}\"", name, text));
  }
  return *dtype;
}

DType compute_dtype_of(const ParsedOptions& options) {
  if (!on_gpu(options)) {
    return dtype_of(options, "--dtype");
  }
  const std::string text = options.text("--dtype");
  if (text == "native") {
    throw InputError(
        fmt::format("--dtype native computes from a file's own blocks, which --device {} does not; give bf16 or f32",
                    options.text("--device")));
  }
  return text == "auto" ? DType::kBF16 : dtype_of(options, "--dtype");
}

bool on_gpu(const ParsedOptions& options) {
  return parse_device(options.text("--device")).kind == DeviceKind::kCuda;
}

ops::Context context_for(const ParsedOptions& options, bool dry_run) {
  const Device device = parse_device(options.text("--device"));
  const bool gpu = device.kind == DeviceKind::kCuda;
  if (gpu && options.text("--backend") == "ref") {
    throw InputError(fmt::format("--backend ref computes on the processor and --device is {}; give one of them",
                                 options.text("--device")));
  }
  const bool reference = options.text("--backend") == "ref" || compute_dtype_of(options) == DType::kF64;
  return ops::make_context({.backend = gpu         ? ops::Backend::kCuda
                                       : reference ? ops::Backend::kRef
                                                   : ops::Backend::kCpu,
                            .dry_run = dry_run,
                            .threads = static_cast<int>(options.integer("--threads").value_or(0)),
                            .memory_capacity = 0,
                            .cuda_device = device.index});
}

OptionSpec trace_option() {
  return {.name = "--trace",
          .value_name = "FILE.json",
          .kind = OptionKind::kFile,
          .help = "write what ran when, op by op, for ui.perfetto.dev or chrome://tracing"};
}

void start_trace(const ParsedOptions& options, ops::Context& ctx) {
  if (options.has("--trace")) {
    ctx.trace = std::make_shared<ops::Trace>(options.path("--trace"), ctx);
  }
}

void finish_trace(ops::Context& ctx) {
  if (ctx.trace != nullptr) {
    ctx.trace->finish();
    ctx.trace.reset();
  }
}

model_io::LoadOptions load_options(const ParsedOptions& options) {
  model_io::LoadOptions result;
  const std::string dtype = options.text("--dtype");
  result.matrices = on_gpu(options)     ? model_io::MatrixForm::kNumbers
                    : dtype == "native" ? model_io::MatrixForm::kAsStored
                    : dtype == "auto"   ? model_io::MatrixForm::kAuto
                                        : model_io::MatrixForm::kNumbers;
  result.adjust = [norm = options.text("--norm-rounding"), rope = options.text("--rope-rounding"),
                   pairing = options.text("--rope-pairing")](model::LlamaConfig& config) {
    config.norm_rounding = norm == "fused" ? ops::NormRounding::kFused : ops::NormRounding::kHuggingFace;
    config.rope_rounding = rope == "f32" ? nn::RopeRounding::kFloat32 : nn::RopeRounding::kActivation;
    config.rope_pairing = pairing == "interleaved" ? ops::RopePairing::kInterleaved : ops::RopePairing::kRotateHalf;
  };
  return result;
}

std::string text_of_input(const std::string& file, Streams streams, std::int64_t max_bytes) {
  if (file != "-") {
    return read_text_file(file, max_bytes);
  }
  std::string text{std::istreambuf_iterator<char>(streams.in), {}};
  if (streams.in.bad()) {
    throw FileError("standard input cannot be read");
  }
  return text;
}

void print_warnings(Streams streams, const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) {
    streams.err << "caravan: warning: " << warning << "\n";
  }
}

Json memory_json(const MemoryUse& use) {
  const auto peak = [&](Segment segment) { return use.segments[static_cast<std::size_t>(segment)].peak_bytes; };
  Json json = Json::object();
  json["weights"] = peak(Segment::kWeights);
  json["activations"] = peak(Segment::kActivations);
  json["workspace"] = peak(Segment::kWorkspace);
  json["peak"] = use.peak_bytes;
  json["high_water"] = use.high_water;
  return json;
}

namespace {

std::string scaled(double value, const char* unit) {
  constexpr double kStep = 1000.0;
  const char* const prefixes[] = {"", "k", "M", "G", "T", "P"};
  std::size_t at = 0;
  while (value >= kStep && at + 1 < std::size(prefixes)) {
    value /= kStep;
    ++at;
  }
  const std::string suffix = std::string(prefixes[at]) + unit;
  const std::string number = at == 0 ? fmt::format("{:.0f}", value) : fmt::format("{:.4g}", value);
  return suffix.empty() ? number : number + " " + suffix;
}

}  // namespace

std::string human_count(std::int64_t count) {
  return scaled(static_cast<double>(count), "");
}

std::string human_bytes(std::int64_t bytes) {
  return scaled(static_cast<double>(bytes), "B");
}

}  // namespace caravan::cli

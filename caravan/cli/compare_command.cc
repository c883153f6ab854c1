#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/shared_options.h"
#include "caravan/model_io/compare.h"

namespace caravan::cli {

namespace {

// A file in a directory of its own, both gone when the object is.
class TemporaryFile {
 public:
  TemporaryFile() {
    std::error_code failure;
    std::string name = (std::filesystem::temp_directory_path(failure) / "caravan-compare-XXXXXX").string();
    if (failure || mkdtemp(name.data()) == nullptr) {
      throw FileError("compare: no temporary directory can be made; set TMPDIR to a directory that can be written");
    }
    path_ = std::filesystem::path(name) / "dump.safetensors";
  }
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove_all(path_.parent_path(), ignored);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The ids a dump was made from: the option, else the file's own metadata, else ids.json beside it.
model_io::IdLists ids_of(const ParsedOptions& options, const std::filesystem::path& reference,
                         const checkpoint::SafetensorsFile& file) {
  if (options.has("--ids")) {
    return model_io::read_id_lists(options.path("--ids"));
  }
  const auto stored = file.header().metadata.find(model_io::kIdsMetadata);
  if (stored != file.header().metadata.end()) {
    return model_io::parse_id_lists(stored->second, reference.string() + ": metadata \"ids\"");
  }
  const std::filesystem::path beside = reference.parent_path() / "ids.json";
  std::error_code ignored;
  if (std::filesystem::exists(beside, ignored)) {
    return model_io::read_id_lists(beside);
  }
  throw InputError(
      fmt::format("compare: {} does not say which ids it was computed from, and there is no ids.json beside "
                  "it; give --ids FILE.json",
                  reference.string()));
}

void dump_like(const ParsedOptions& options, Streams streams, const std::filesystem::path& reference,
               const std::filesystem::path& target) {
  const checkpoint::SafetensorsFile file = checkpoint::SafetensorsFile::open(reference);
  model_io::DumpRequest request;
  for (const checkpoint::TensorEntry& entry : file.header().entries) {
    request.logits = request.logits || entry.name.starts_with("logits.");
    request.hidden = request.hidden || entry.name.starts_with("hidden.");
  }
  if (!request.logits && !request.hidden) {
    throw InputError(
        fmt::format("compare: {} holds neither logits.* nor hidden.*, so there is nothing to compare a "
                    "model with",
                    reference.string()));
  }
  ops::Context ctx = context_for(options, /*dry_run=*/false);
  const model_io::LoadedModel model =
      model_io::load_model(ctx, options.path("--model"), compute_dtype_of(options), load_options(options));
  print_warnings(streams, model.warnings);
  model_io::dump(ctx, model, ids_of(options, reference, file), request, target);
}

Json to_json(const model_io::TensorDifference& one) {
  Json json = Json::object();
  json["name"] = one.name;
  json["within"] = one.within;
  if (!one.problem.empty()) {
    json["problem"] = one.problem;
    return json;
  }
  const auto number = [](double value) { return std::isfinite(value) ? Json(value) : Json(fmt::format("{}", value)); };
  json["max_error"] = number(one.max_error);
  json["relative_error"] = number(one.relative_error);
  json["where"] = one.where;
  json["a"] = number(one.a);
  json["b"] = number(one.b);
  return json;
}

void print_json(Streams streams, const model_io::Comparison& result, double tolerance) {
  Json json = Json::object();
  json["within"] = result.first_difference < 0;
  json["tolerance"] = tolerance;
  json["first_difference"] = result.first_difference < 0
                                 ? Json(nullptr)
                                 : Json(result.tensors[static_cast<std::size_t>(result.first_difference)].name);
  json["tensors"] = Json::array();
  for (const model_io::TensorDifference& one : result.tensors) {
    json["tensors"].push_back(to_json(one));
  }
  streams.out << json.dump() << "\n";
}

void print_table(Streams streams, const model_io::Comparison& result, double tolerance) {
  std::size_t width = 6;
  for (const model_io::TensorDifference& one : result.tensors) {
    width = std::max(width, one.name.size());
  }
  streams.out << fmt::format("{:<{}}  {:>10}  {:>10}\n", "tensor", width, "max error", "relative");
  for (const model_io::TensorDifference& one : result.tensors) {
    if (one.problem.empty()) {
      streams.out << fmt::format("{:<{}}  {:>10.3e}  {:>10.3e}{}\n", one.name, width, one.max_error, one.relative_error,
                                 one.within ? "" : "  beyond tolerance");
    } else {
      streams.out << fmt::format("{:<{}}  {}\n", one.name, width, one.problem);
    }
  }
  if (result.first_difference < 0) {
    streams.out << fmt::format("{} tensors, all within {:g}\n", result.tensors.size(), tolerance);
    return;
  }
  const model_io::TensorDifference& first = result.tensors[static_cast<std::size_t>(result.first_difference)];
  if (first.problem.empty()) {
    streams.out << fmt::format("first difference: {} at [{}]: {} and {}, relative error {:.3e} beyond {:g}\n",
                               first.name, fmt::join(first.where, ", "), first.a, first.b, first.relative_error,
                               tolerance);
  } else {
    streams.out << fmt::format("first difference: {}: {}\n", first.name, first.problem);
  }
}

int run_compare(const ParsedOptions& options, Streams streams) {
  const double tolerance = options.number("--tolerance").value();
  if (!(tolerance >= 0.0)) {
    throw InputError(fmt::format("--tolerance must be at least 0, found {}", tolerance));
  }
  const bool from_model = options.has("--model");
  if (from_model == options.has("B.safetensors")) {
    throw InputError(from_model ? "compare: with --model there is one file to compare with, found two"
                                : "compare: two files are needed, or --model DIR and one file");
  }
  std::optional<TemporaryFile> dumped;
  std::filesystem::path a = options.path("A.safetensors");
  std::filesystem::path b = options.path("B.safetensors");
  if (from_model) {
    b = a;
    a = dumped.emplace().path();
    dump_like(options, streams, b, a);
  }
  const model_io::Comparison result = model_io::compare(a, b, tolerance);
  for (const model_io::TensorDifference& one : result.tensors) {
    if (one.both_nan > 0) {
      print_warnings(streams, {fmt::format("{} is NaN on both sides in {} elements", one.name, one.both_nan)});
    }
  }
  if (options.has("--json")) {
    print_json(streams, result, tolerance);
  } else {
    print_table(streams, result, tolerance);
  }
  return result.first_difference < 0 ? 0 : 1;
}

}  // namespace

Command compare_command() {
  CommandSpec spec;
  spec.name = "compare";
  spec.summary = "lay two dumps side by side and name the first difference";
  spec.description =
      "Compares tensor by tensor in the order of the computation: hidden states layer by layer, then logits, sequence "
      "by "
      "sequence. The relative error of a tensor is its largest absolute error over the largest absolute value of the "
      "second file's tensor. With --model the model is dumped first, on the ids that --ids names, or else those in the "
      "file's metadata, or else ids.json beside the file. The exit status is 0 when every tensor is within the "
      "tolerance "
      "and 1 when one is not.";
  spec.options = {
      {.name = "A.safetensors",
       .value_name = "",
       .kind = OptionKind::kFile,
       .help = "a dump",
       .required = true,
       .positional = true},
      {.name = "B.safetensors",
       .value_name = "",
       .kind = OptionKind::kFile,
       .help = "the dump to measure against; left out with --model",
       .positional = true},
      {.name = "--tolerance",
       .value_name = "X",
       .kind = OptionKind::kNumber,
       .help = "largest relative error allowed",
       .default_value = "1e-4"},
      json_option(),
      {.name = "--model",
       .value_name = "MODEL",
       .kind = OptionKind::kFile,
       .help = "dump this model (directory or GGUF file) first and compare it with the one file"},
      {.name = "--ids", .value_name = "FILE.json", .kind = OptionKind::kFile, .help = "ids to dump --model with"},
      compute_dtype_option(),
  };
  for (OptionSpec& option : numerics_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.examples = {"caravan compare ours.safetensors theirs.safetensors --tolerance 1e-4",
                   "caravan compare --model DIR theirs.safetensors"};
  return {spec, run_compare};
}

}  // namespace caravan::cli

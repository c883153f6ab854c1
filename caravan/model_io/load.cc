#include "caravan/model_io/load.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "caravan/base/error.h"
#include "caravan/model_io/rope_rows.h"
#include "caravan/tensor/copy.h"

namespace caravan::model_io {

namespace {

using checkpoint::SafetensorsSet;

// Elements converted at a time: a staging buffer of a few megabytes.
constexpr std::int64_t kBlock = std::int64_t{1} << 20;

// More names than the largest Llama has tensors help nobody.
constexpr std::size_t kMostNames = 2000;

std::vector<std::int64_t> extents(const Shape& shape) {
  return {shape.extents().begin(), shape.extents().end()};
}

bool is_ignorable(const std::string& name, const std::vector<ParamSpec>& specs) {
  // Buffers that transformers once saved and recomputes.
  if (name.ends_with(".rotary_emb.inv_freq")) {
    return true;
  }
  return std::ranges::any_of(specs, [&](const ParamSpec& spec) { return !spec.alias_of.empty() && spec.name == name; });
}

// Copies one part, rows reordered when `order` is not empty, converting to the store's dtype.
void fill_part(const Tensor& part, const SafetensorsSet::Located& source, const std::vector<std::int64_t>& order) {
  const DType from = *source.entry->dtype;
  const std::byte* bytes = source.bytes().data();
  const std::int64_t row_elements = part.columns();
  std::vector<std::byte> staging;
  const auto convert = [&](const Tensor& rows, std::int64_t first_element) {
    staging.resize(static_cast<std::size_t>(rows.bytes()));
    convert_elements(rows.dtype(), staging.data(), from, bytes + first_element * size_of(from), rows.elements());
    copy_from_host(rows, staging);
  };
  if (!order.empty()) {
    for (std::int64_t row = 0; row < part.rows(); ++row) {
      convert(part.row_range(row, row + 1), order[static_cast<std::size_t>(row)] * row_elements);
    }
    return;
  }
  const std::int64_t rows_per_block = std::max<std::int64_t>(1, kBlock / std::max<std::int64_t>(1, row_elements));
  for (std::int64_t row = 0; row < part.rows(); row += rows_per_block) {
    convert(part.row_range(row, std::min(part.rows(), row + rows_per_block)), row * row_elements);
  }
}

std::optional<std::string> non_finite_warning(const SafetensorsSet::Located& source) {
  const checkpoint::TensorEntry& entry = *source.entry;
  const std::int64_t count = entry.bytes() / size_of(*entry.dtype);
  std::int64_t index = first_non_finite(*entry.dtype, source.bytes().data(), count);
  if (index < 0) {
    return std::nullopt;
  }
  double value = 0.0;
  convert_elements(DType::kF64, reinterpret_cast<std::byte*>(&value), *entry.dtype,
                   source.bytes().data() + index * size_of(*entry.dtype), 1);
  std::vector<std::int64_t> place(entry.shape.size());
  for (std::size_t axis = entry.shape.size(); axis-- > 0;) {
    place[axis] = index % entry.shape[axis];
    index /= entry.shape[axis];
  }
  return fmt::format("{}: tensor \"{}\" holds {} at [{}]; results that depend on it will not be numbers",
                     source.file->path().string(), entry.name, value, fmt::join(place, ", "));
}

// A tied head that the file also stores must be the embedding; transformers may use it when it is not.
void check_tied_copies(const SafetensorsSet& files, const std::vector<ParamSpec>& specs,
                       std::vector<std::string>& warnings) {
  for (const ParamSpec& spec : specs) {
    const auto copy = files.find(spec.name);
    const auto original = files.find(spec.alias_of);
    if (spec.alias_of.empty() || !copy || !original) {
      continue;
    }
    const auto a = copy->bytes();
    const auto b = original->bytes();
    if (a.size() != b.size() || std::memcmp(a.data(), b.data(), a.size()) != 0) {
      warnings.push_back(
          fmt::format("{}: \"{}\" differs from \"{}\" although config.json ties them; the latter is used",
                      copy->file->path().string(), spec.name, spec.alias_of));
    }
  }
}

void fill_weights(ops::Context& ctx, LoadedModel& model, const SafetensorsSet& files, const LoadOptions& options) {
  const model::LlamaConfig& config = model.config.model;
  const std::int64_t total = files.total_bytes();
  std::int64_t done = 0;
  for (autograd::Parameter& parameter : model.weights->parameters()) {
    for (const ParamPart& part : parameter.spec.parts) {
      const SafetensorsSet::Located source = files.find(part.name).value();
      if (options.check_finite) {
        if (auto warning = non_finite_warning(source)) {
          model.warnings.push_back(*std::move(warning));
        }
      }
      const bool reorder = config.rope_pairing == ops::RopePairing::kInterleaved && has_rotary_rows(part.name);
      fill_part(autograd::part_rows(parameter.stored(), part), source,
                reorder ? interleaved_from_half(part.shape[0], config.head_dim) : std::vector<std::int64_t>());
      done += source.entry->bytes();
      if (options.progress) {
        options.progress(done, total);
      }
    }
  }
  model.weights->masters_changed(ctx);
}

}  // namespace

std::vector<std::string> disagreements(const SafetensorsSet& files, const std::vector<ParamSpec>& specs) {
  std::set<std::string> known;
  std::vector<std::string> missing;
  std::vector<std::string> misshapen;
  std::vector<std::string> not_float;
  for (const ParamSpec& spec : specs) {
    if (!spec.alias_of.empty()) {
      continue;
    }
    for (const ParamPart& part : spec.parts) {
      known.insert(part.name);
      const auto found = files.find(part.name);
      if (!found) {
        missing.push_back(part.name);
      } else if (found->entry->shape != extents(part.shape)) {
        misshapen.push_back(fmt::format("{} (expected {}, found [{}])", part.name, to_string(part.shape),
                                        fmt::join(found->entry->shape, ", ")));
      } else if (!found->entry->dtype || !is_compute_float(*found->entry->dtype)) {
        not_float.push_back(fmt::format("{} ({})", part.name, found->entry->dtype_name));
      }
    }
  }
  std::vector<std::string> extra;
  for (const std::string& name : files.names()) {
    if (!known.contains(name) && !is_ignorable(name, specs)) {
      extra.push_back(name);
    }
  }
  std::vector<std::string> result;
  const auto report = [&](const char* what, const std::vector<std::string>& names) {
    if (names.empty()) {
      return;
    }
    const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), kMostNames));
    result.push_back(fmt::format("{} {}: {}{}", names.size(), what, fmt::join(names.begin(), end, ", "),
                                 end == names.end() ? "" : " and more"));
  };
  report("tensors that config.json asks for are missing", missing);
  report("tensors that config.json knows nothing of", extra);
  report("tensors of another shape", misshapen);
  report("tensors of a type that weights cannot have (F64, F32, BF16 and F16 can)", not_float);
  return result;
}

LoadedModel load_model(ops::Context& ctx, const std::filesystem::path& directory, DType dtype,
                       const LoadOptions& options) {
  LoadedModel model;
  model.config = read_hf_config(directory);
  model.warnings = model.config.warnings;
  if (options.adjust) {
    options.adjust(model.config.model);
  }
  const std::vector<ParamSpec> specs = model::parameter_specs(model.config.model);
  const SafetensorsSet files = SafetensorsSet::open(directory);
  const std::vector<std::string> problems = disagreements(files, specs);
  if (!problems.empty()) {
    throw FormatError(
        fmt::format("{}: weights and config.json disagree: {}", directory.string(), fmt::join(problems, "; ")));
  }
  model.weights = options.training ? autograd::WeightStore::for_training(ctx, specs, dtype)
                                   : std::make_unique<autograd::WeightStore>(ctx, specs, dtype);
  if (!ctx.dry_run()) {
    check_tied_copies(files, specs, model.warnings);
    fill_weights(ctx, model, files, options);
  }
  if (options.training) {
    model.weights->allocate_gradients(ctx);
  }
  model.llama = std::make_unique<model::Llama>(model.config.model, *model.weights);
  return model;
}

LoadedModel create_model(ops::Context& ctx, const HfConfig& config, DType dtype, std::uint64_t seed, bool training) {
  LoadedModel model;
  model.config = config;
  const std::vector<ParamSpec> specs = model::parameter_specs(config.model);
  model.weights = training ? autograd::WeightStore::for_training(ctx, specs, dtype)
                           : std::make_unique<autograd::WeightStore>(ctx, specs, dtype);
  if (!ctx.dry_run()) {
    autograd::initialize(*model.weights, seed);
  }
  if (training) {
    model.weights->allocate_gradients(ctx);
  }
  model.llama = std::make_unique<model::Llama>(config.model, *model.weights);
  return model;
}

}  // namespace caravan::model_io

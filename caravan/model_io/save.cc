#include "caravan/model_io/save.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "caravan/base/directory.h"
#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/text.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/model_io/rope_rows.h"
#include "caravan/tensor/copy.h"

namespace caravan::model_io {

namespace {

using checkpoint::TensorPlan;

constexpr std::int64_t kBlock = std::int64_t{1} << 20;       // elements converted at a time
constexpr std::int64_t kHeaderBytesPerTensor = 256;          // a generous guess, for the free-space check
constexpr std::int64_t kSmallFiles = std::int64_t{1} << 20;  // config.json and its like

// One part of one parameter, as it goes to disk.
struct PartToWrite {
  const autograd::Parameter* parameter;
  std::size_t index;

  const ParamPart& part() const { return parameter->spec.parts[index]; }
};

std::vector<PartToWrite> parts_to_write(const LoadedModel& model) {
  std::vector<PartToWrite> parts;
  for (const autograd::Parameter& parameter : model.weights->parameters()) {
    for (std::size_t i = 0; i < parameter.spec.parts.size(); ++i) {
      parts.push_back({&parameter, i});
    }
  }
  return parts;
}

TensorPlan plan_of(const PartToWrite& one, DType dtype) {
  const auto extents = one.part().shape.extents();
  return {one.part().name, dtype, {extents.begin(), extents.end()}};
}

DType dtype_of(const PartToWrite& one, const SaveOptions& options) {
  const auto found = options.dtypes.find(one.part().name);
  return found == options.dtypes.end() ? options.dtype : found->second;
}

void append_rows(checkpoint::SafetensorsWriter& writer, const Tensor& rows, DType dtype, const std::string& name) {
  std::vector<std::byte> stored(static_cast<std::size_t>(rows.bytes()));
  copy_to_host(stored, rows);
  if (rows.dtype() == dtype) {
    writer.append(stored);
    return;
  }
  std::vector<std::byte> converted(static_cast<std::size_t>(rows.elements() * size_of(dtype)));
  convert_elements(dtype, converted.data(), rows.dtype(), stored.data(), rows.elements());
  const std::int64_t lost = first_non_finite(dtype, converted.data(), rows.elements());
  if (lost >= 0 && first_non_finite(rows.dtype(), stored.data() + lost * size_of(rows.dtype()), 1) < 0) {
    double value = 0.0;
    convert_elements(DType::kF64, reinterpret_cast<std::byte*>(&value), rows.dtype(),
                     stored.data() + lost * size_of(rows.dtype()), 1);
    throw InputError(
        fmt::format("tensor \"{}\" holds {}, which {} cannot hold; choose bf16 or f32", name, value, to_string(dtype)));
  }
  writer.append(converted);
}

void append_part(checkpoint::SafetensorsWriter& writer, const PartToWrite& one, const model::LlamaConfig& config,
                 DType dtype) {
  const std::string& name = one.part().name;
  const Tensor rows = autograd::part_rows(one.parameter->stored(), one.part());
  if (config.rope_pairing == ops::RopePairing::kInterleaved && has_rotary_rows(name)) {
    for (const std::int64_t row : half_from_interleaved(rows.rows(), config.head_dim)) {
      append_rows(writer, rows.row_range(row, row + 1), dtype, name);
    }
    return;
  }
  const std::int64_t per_block = std::max<std::int64_t>(1, kBlock / std::max<std::int64_t>(1, rows.columns()));
  for (std::int64_t row = 0; row < rows.rows(); row += per_block) {
    append_rows(writer, rows.row_range(row, std::min(rows.rows(), row + per_block)), dtype, name);
  }
}

std::int64_t bytes_needed(const std::vector<TensorPlan>& plan, const SaveOptions& options) {
  std::int64_t bytes = kSmallFiles;
  for (const TensorPlan& one : plan) {
    bytes += one.bytes() + kHeaderBytesPerTensor;
  }
  for (const std::filesystem::path& companion : options.companions) {
    bytes += static_cast<std::int64_t>(std::filesystem::file_size(companion));
  }
  return bytes;
}

void write_weights(const LoadedModel& model, const std::filesystem::path& directory, const SaveOptions& options,
                   const std::vector<PartToWrite>& parts, const std::vector<TensorPlan>& plan) {
  const std::vector<std::vector<TensorPlan>> shards = checkpoint::plan_shards(plan, options.max_shard_bytes);
  std::int64_t total = 0;
  for (const TensorPlan& one : plan) {
    total += one.bytes();
  }
  std::int64_t done = 0;
  std::size_t next = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    // transformers refuses a file whose metadata does not name the framework.
    checkpoint::SafetensorsWriter writer(directory / checkpoint::shard_name(i, shards.size()), shards[i],
                                         {{"format", "pt"}});
    for (std::size_t tensor = 0; tensor < shards[i].size(); ++tensor, ++next) {
      append_part(writer, parts[next], model.config.model, dtype_of(parts[next], options));
      done += plan[next].bytes();
      if (options.progress) {
        options.progress(done, total);
      }
    }
    writer.finish();
  }
  if (shards.size() > 1) {
    write_text_file(directory / "model.safetensors.index.json", checkpoint::shard_index(shards));
  }
}

constexpr const char* kCompanions[] = {"generation_config.json",
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "tokenizer.model",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "chat_template.jinja",
                                       "chat_template.json",
                                       "LICENSE",
                                       "LICENSE.txt",
                                       "README.md"};

}  // namespace

void refuse_foreign_files(const std::filesystem::path& directory) {
  std::vector<std::string> foreign;
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored)) {
    return;
  }
  for (const std::string& name : names_in(directory)) {
    const bool known = name == "config.json" || name == "model.safetensors.index.json" ||
                       name.ends_with(".safetensors") || std::ranges::find(kCompanions, name) != std::end(kCompanions);
    if (!known || !std::filesystem::is_regular_file(directory / name, ignored)) {
      foreign.push_back(name);
    }
  }
  if (!foreign.empty()) {
    throw FileError(
        fmt::format("{}: it holds what is no part of a model ({}{}) and is not replaced; choose another target",
                    directory.string(), printable(foreign.front()), foreign.size() > 1 ? " and more" : ""));
  }
}

std::vector<std::filesystem::path> companion_files(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> result;
  for (const char* name : kCompanions) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(directory / name, ignored)) {
      result.push_back(directory / name);
    }
  }
  return result;
}

void save_model(const LoadedModel& model, const std::filesystem::path& directory, const SaveOptions& options) {
  const std::vector<PartToWrite> parts = parts_to_write(model);
  std::vector<TensorPlan> plan;
  for (const PartToWrite& one : parts) {
    plan.push_back(plan_of(one, dtype_of(one, options)));
  }
  refuse_foreign_files(directory);
  AtomicDirectory staged(directory, options.replace, bytes_needed(plan, options));
  write_text_file(staged.path() / "config.json", format_hf_config(model.config, options.dtype, options.dialect));
  write_text_file(staged.path() / "generation_config.json", format_generation_config(model.config));
  for (const std::filesystem::path& companion : options.companions) {
    std::error_code failure;
    std::filesystem::copy_file(companion, staged.path() / companion.filename(),
                               std::filesystem::copy_options::overwrite_existing, failure);
    if (failure) {
      throw FileError(
          fmt::format("{}: cannot be copied to {}: {}", companion.string(), directory.string(), failure.message()));
    }
  }
  write_weights(model, staged.path(), options, parts, plan);
  staged.commit();
}

}  // namespace caravan::model_io

#include "caravan/model_io/model_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/model_io/gguf_config.h"
#include "caravan/quant/dequantize.h"

namespace caravan::model_io {

namespace {

using checkpoint::GgufFile;
using checkpoint::GgufTensor;
using checkpoint::SafetensorsSet;

// More names than the largest Llama has tensors help nobody.
constexpr std::size_t kMostNames = 2000;

// Whether all is well; otherwise the problems are handed on or thrown.
bool agreed(const std::filesystem::path& path, const char* what, const std::vector<std::string>& problems,
            std::vector<std::string>* out) {
  if (problems.empty()) {
    return true;
  }
  if (out == nullptr) {
    throw FormatError(fmt::format("{}: weights and {} disagree: {}", path.string(), what, fmt::join(problems, "; ")));
  }
  out->insert(out->end(), problems.begin(), problems.end());
  return false;
}

bool has_transformer_engine_names(const SafetensorsSet& set) {
  return std::ranges::any_of(
      set.names(), [](const std::string& name) { return name.ends_with(".self_attention.layernorm_qkv.weight"); });
}

ModelFiles open_directory(const std::filesystem::path& path, std::vector<std::string>* out) {
  ModelFiles files;
  files.path = path;
  files.config = read_hf_config(path);
  const auto set = std::make_shared<const SafetensorsSet>(SafetensorsSet::open(path));
  const bool fused = has_transformer_engine_names(*set);
  files.kind = fused ? SourceKind::kTransformerEngine : SourceKind::kHuggingFace;
  files.arrangement = arrange(files.config.model, fused ? Dialect::kTransformerEngine : Dialect::kHuggingFace);
  std::map<std::string, FoundTensor> found;
  for (const std::string& name : set->names()) {
    const checkpoint::TensorEntry& entry = *set->find(name)->entry;
    found[name] = {entry.shape, entry.dtype_name, entry.dtype && is_compute_float(*entry.dtype)};
  }
  const bool tied = files.config.model.tie_word_embeddings;
  const std::vector<std::string> problems =
      disagreements(found, files.arrangement, "config.json", [&](const std::string& name) {
        // Buffers that transformers once saved and recomputes, what TransformerEngine keeps about FP8, a tied head.
        return name.ends_with(".rotary_emb.inv_freq") || (fused && name.ends_with("._extra_state")) ||
               (tied && name == "lm_head.weight");
      });
  files.keep = set;
  if (!agreed(path, "config.json", problems, out)) {
    return files;
  }
  for (const FileTensor& one : files.arrangement.tensors) {
    const SafetensorsSet::Located located = set->find(one.name).value();
    const quant::BlockType type = quant::plain_type(*located.entry->dtype).value();
    const std::int64_t columns = columns_of(one.shape);
    files.tensors.push_back(
        {type, rows_of(one.shape), columns, columns * quant::facts(type).bytes, located.bytes(), set});
    files.tensor_files.push_back(located.file->path().string());
  }
  return files;
}

}  // namespace

const char* to_string(SourceKind kind) {
  switch (kind) {
    case SourceKind::kHuggingFace:
      return "a Hugging Face directory";
    case SourceKind::kGguf:
      return "a GGUF file";
    case SourceKind::kTransformerEngine:
      return "a directory of TransformerEngine's names";
    case SourceKind::kCheckpoint:
      return "a checkpoint of a training";
  }
  return "unknown files";
}

ModelFiles open_model(const GgufFile& file, std::vector<std::string>* out) {
  ModelFiles files;
  files.kind = SourceKind::kGguf;
  files.path = file.path();
  files.config = read_gguf_config(file);
  files.arrangement = arrange(files.config.model, Dialect::kGguf);
  std::map<std::string, FoundTensor> found;
  for (const GgufTensor& tensor : file.header().tensors) {
    // A vector is short and always plain; blocks could not be taken apart for the order of rotary pairs.
    const bool usable = tensor.type->readable && (tensor.shape.size() > 1 || tensor.type->elements == 1);
    found[tensor.name] = {tensor.shape, tensor.type->name, usable};
  }
  const std::vector<std::string> problems = disagreements(
      found, files.arrangement, "the metadata",
      [](const std::string& name) { return name.starts_with("rope_") || name.ends_with(".attn_rot_embd"); });
  files.gguf = file;
  if (!agreed(file.path(), "metadata", problems, out)) {
    return files;
  }
  for (const FileTensor& one : files.arrangement.tensors) {
    quant::BlockMatrix blocks = file.blocks(*file.find(one.name));
    if (one.shape.size() == 1) {
      blocks.row_bytes /= blocks.columns;
      blocks.rows = std::exchange(blocks.columns, 1);
    }
    files.tensors.push_back(std::move(blocks));
    files.tensor_files.push_back(file.path().string());
  }
  return files;
}

ModelFiles open_model(const std::filesystem::path& path, std::vector<std::string>* problems) {
  std::error_code ignored;
  if (checkpoint::is_gguf(path)) {
    return open_model(GgufFile::open(path), problems);
  }
  if (std::filesystem::is_regular_file(path, ignored)) {
    throw InputError(fmt::format(
        "{}: is neither a GGUF file nor a model directory with config.json and safetensors files", path.string()));
  }
  return open_directory(path, problems);
}

HfConfig read_model_config(const std::filesystem::path& path) {
  return checkpoint::is_gguf(path) ? read_gguf_config(GgufFile::open(path)) : read_hf_config(path);
}

std::size_t part_index(const ModelFiles& files, const std::string& part) {
  const std::vector<ParamPart>& parts = files.arrangement.parts;
  const auto found = std::ranges::find(parts, part, &ParamPart::name);
  if (found == parts.end()) {
    throw ShapeError(fmt::format("{}: the model has no part \"{}\"", files.path.string(), part));
  }
  return static_cast<std::size_t>(found - parts.begin());
}

quant::BlockType part_type(const ModelFiles& files, std::size_t part) {
  return files.tensors[static_cast<std::size_t>(files.arrangement.places[part].front().tensor)].type;
}

std::int64_t part_row_bytes(const ModelFiles& files, std::size_t part) {
  return files.tensors[static_cast<std::size_t>(files.arrangement.places[part].front().tensor)].row_bytes;
}

std::int64_t total_bytes(const ModelFiles& files) {
  std::int64_t total = 0;
  for (const quant::BlockMatrix& one : files.tensors) {
    total += static_cast<std::int64_t>(one.bytes.size());
  }
  return total;
}

void read_rows(const ModelFiles& files, std::size_t part, std::int64_t begin, std::int64_t end, std::byte* out) {
  std::int64_t row = 0;
  for (const PlaceRun& run : files.arrangement.places[part]) {
    const std::int64_t first = std::max(begin, row);
    const std::int64_t last = std::min(end, row + run.count);
    if (first < last) {
      const std::span<const std::byte> bytes = files.tensors[static_cast<std::size_t>(run.tensor)].row_range(
          run.begin + first - row, run.begin + last - row);
      std::memcpy(out, bytes.data(), bytes.size());
      out += bytes.size();
    }
    row += run.count;
    if (row >= end) {
      break;
    }
  }
}

void read_floats(const ModelFiles& files, std::size_t part, std::int64_t begin, std::int64_t end, float* out,
                 std::vector<std::byte>& staging, int threads) {
  const std::int64_t row_bytes = part_row_bytes(files, part);
  staging.resize(static_cast<std::size_t>((end - begin) * row_bytes));
  read_rows(files, part, begin, end, staging.data());
  const auto& shape = files.arrangement.parts[part].shape;
  const std::int64_t columns = shape.rank() == 1 ? 1 : shape[1];
  const quant::BlockMatrix rows{part_type(files, part), end - begin, columns, row_bytes, staging, nullptr};
  quant::dequantize_rows(rows, 0, end - begin, out, threads);
}

std::vector<std::string> disagreements(const std::map<std::string, FoundTensor>& found, const Arrangement& wanted,
                                       const std::string& asks,
                                       const std::function<bool(const std::string&)>& ignorable) {
  std::set<std::string> known;
  std::vector<std::string> missing;
  std::vector<std::string> misshapen;
  std::vector<std::string> not_float;
  for (const FileTensor& tensor : wanted.tensors) {
    known.insert(tensor.name);
    const auto there = found.find(tensor.name);
    if (there == found.end()) {
      missing.push_back(tensor.name);
    } else if (there->second.shape != tensor.shape) {
      misshapen.push_back(fmt::format("{} (expected [{}], found [{}])", tensor.name, fmt::join(tensor.shape, ", "),
                                      fmt::join(there->second.shape, ", ")));
    } else if (!there->second.usable) {
      not_float.push_back(fmt::format("{} ({})", tensor.name, there->second.type_name));
    }
  }
  std::vector<std::string> extra;
  for (const auto& [name, tensor] : found) {
    if (!known.contains(name) && !ignorable(name)) {
      extra.push_back(name);
    }
  }
  std::vector<std::string> result;
  const auto report = [&](const std::string& what, const std::vector<std::string>& names) {
    if (names.empty()) {
      return;
    }
    const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), kMostNames));
    result.push_back(fmt::format("{} {}: {}{}", names.size(), what, fmt::join(names.begin(), end, ", "),
                                 end == names.end() ? "" : " and more"));
  };
  report(fmt::format("tensors that {} asks for are missing", asks), missing);
  report(fmt::format("tensors that {} knows nothing of", asks), extra);
  report("tensors of another shape", misshapen);
  report("tensors of a type that weights cannot have (F64, F32, BF16, F16 and, in GGUF files, blocks can)", not_float);
  return result;
}

}  // namespace caravan::model_io

#include "caravan/model_io/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/model_io/gguf_config.h"
#include "caravan/model_io/gguf_tokenizer.h"
#include "caravan/quant/dequantize.h"
#include "caravan/quant/quantize.h"
#include "caravan/tensor/copy.h"

namespace caravan::model_io {

namespace {

using checkpoint::GgufEntry;
using checkpoint::GgufTensorPlan;
using checkpoint::TensorPlan;
using quant::BlockType;

constexpr std::int64_t kBlock = std::int64_t{1} << 20;       // elements converted at a time
constexpr std::int64_t kSmallFiles = std::int64_t{1} << 20;  // config.json and its like
// llama.cpp loads a file without a tokenizer when the file says that there is none.
constexpr const char* kTokenizerModel = "tokenizer.ggml.model";
constexpr const char* kNoTokenizer = "no_vocab";
constexpr std::int64_t kMaxTokenizerBytes = std::int64_t{64} << 20;

// Where the bytes of tensors go, one after the other.
using Sink = std::function<void(std::span<const std::byte>)>;

// Gathers rows of the source and hands them on in the target's type.
class RowWriter {
 public:
  RowWriter(const ModelFiles& source, int threads, Sink sink)
      : source_(source), threads_(threads), sink_(std::move(sink)) {}

  void write(const FileTensor& tensor, BlockType to) {
    columns_ = columns_of(tensor.shape);
    to_ = to;
    const std::int64_t batch = std::max<std::int64_t>(1, kBlock / columns_);
    for (const RowRun& run : tensor.rows) {
      const auto part = static_cast<std::size_t>(run.part);
      if (rows_ > 0 && part_type(source_, part) != from_) {
        flush(tensor);
      }
      from_ = part_type(source_, part);
      row_bytes_ = part_row_bytes(source_, part);
      for (std::int64_t row = 0; row < run.count;) {
        const std::int64_t count = std::min(run.count - row, batch - rows_);
        gathered_.resize(static_cast<std::size_t>((rows_ + count) * row_bytes_));
        read_rows(source_, part, run.begin + row, run.begin + row + count, gathered_.data() + rows_ * row_bytes_);
        rows_ += count;
        row += count;
        if (rows_ == batch) {
          flush(tensor);
        }
      }
    }
    flush(tensor);
  }

 private:
  void flush(const FileTensor& tensor) {
    if (rows_ == 0) {
      return;
    }
    const std::int64_t elements = rows_ * columns_;
    const auto from = quant::plain_dtype(from_);
    const auto to = quant::plain_dtype(to_);
    if (from_ == to_) {
      sink_(gathered_);
    } else if (from && to) {
      converted_.resize(static_cast<std::size_t>(elements * size_of(*to)));
      convert_elements(*to, converted_.data(), *from, gathered_.data(), elements);
      check_range(tensor, *from, *to, elements);
      sink_(converted_);
    } else {
      floats_.resize(static_cast<std::size_t>(elements));
      const quant::BlockMatrix rows{from_, rows_, columns_, row_bytes_, gathered_, nullptr};
      quant::dequantize_rows(rows, 0, rows_, floats_.data(), threads_);
      check_finite(tensor, elements);
      const std::int64_t bytes = quant::row_bytes(quant::facts(to_), columns_).value();
      converted_.resize(static_cast<std::size_t>(rows_ * bytes));
      quant::quantize_rows(to_, floats_.data(), rows_, columns_, converted_.data(), threads_);
      sink_(converted_);
    }
    rows_ = 0;
  }

  // A finite weight may not become infinite.
  void check_range(const FileTensor& tensor, DType from, DType to, std::int64_t elements) const {
    std::int64_t at = first_non_finite(to, converted_.data(), elements);
    if (at >= 0 && first_non_finite(from, gathered_.data() + at * size_of(from), 1) < 0) {
      double value = 0.0;
      convert_elements(DType::kF64, reinterpret_cast<std::byte*>(&value), from, gathered_.data() + at * size_of(from),
                       1);
      throw InputError(fmt::format("tensor \"{}\" holds {}, which {} cannot hold; choose bf16 or f32", tensor.name,
                                   value, to_string(to)));
    }
  }

  void check_finite(const FileTensor& tensor, std::int64_t elements) const {
    if (quant::plain_dtype(to_)) {
      return;
    }
    const std::int64_t at = first_non_finite(DType::kF32, reinterpret_cast<const std::byte*>(floats_.data()), elements);
    if (at >= 0) {
      throw InputError(fmt::format("tensor \"{}\" holds {}, which blocks of {} cannot hold; choose bf16 or f32",
                                   tensor.name, floats_[static_cast<std::size_t>(at)], quant::facts(to_).name));
    }
  }

  const ModelFiles& source_;
  int threads_;
  Sink sink_;
  std::int64_t columns_ = 1;
  BlockType to_ = BlockType::kF32;
  BlockType from_ = BlockType::kF32;
  std::int64_t row_bytes_ = 0;
  std::int64_t rows_ = 0;  // gathered so far
  std::vector<std::byte> gathered_;
  std::vector<float> floats_;
  std::vector<std::byte> converted_;
};

struct Plan {
  Arrangement arrangement;
  std::vector<BlockType> types;
  std::int64_t bytes = 0;
};

Plan make_plan(const ModelFiles& source, const ConvertOptions& options, ConvertReport& report) {
  Plan plan;
  plan.arrangement = arrange(source.config.model, options.to);
  plan.types = plan_types(source, plan.arrangement, options.to, options.type, report.notes);
  for (std::size_t i = 0; i < plan.types.size(); ++i) {
    const FileTensor& tensor = plan.arrangement.tensors[i];
    ++report.types[quant::facts(plan.types[i]).name];
    plan.bytes +=
        rows_of(tensor.shape) * quant::row_bytes(quant::facts(plan.types[i]), columns_of(tensor.shape)).value();
  }
  report.bytes = plan.bytes;
  return plan;
}

// The type that config.json names: the one of all tensors, else one that holds all of them.
DType config_dtype(const Plan& plan) {
  std::optional<DType> result;
  for (const BlockType type : plan.types) {
    const DType dtype = quant::plain_dtype(type).value_or(DType::kF32);
    if (result && *result != dtype) {
      return dtype == DType::kF64 || *result == DType::kF64 ? DType::kF64 : DType::kF32;
    }
    result = dtype;
  }
  return result.value_or(DType::kF32);
}

std::string read_if_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored) ? read_text_file(path, kMaxTokenizerBytes) : std::string();
}

// --- directories

// NVLlamaForCausalLM's config.json: LlamaConfig's, with what its own class wants (BioNeMo's defaults).
std::string transformer_engine_config(const std::string& text) {
  Json json = Json::parse(text);
  json["architectures"] = {"NVLlamaForCausalLM"};
  json["attn_input_format"] = "thd";
  json["layer_precision"] = nullptr;
  json["self_attn_mask_type"] = "padding_causal";
  json["use_quantized_model_init"] = false;
  return json.dump(2) + "\n";
}

void write_companions(const ModelFiles& source, const std::filesystem::path& staged, const ConvertOptions& options,
                      ConvertReport& report) {
  if (source.gguf) {
    if (const auto tokenizer = read_gguf_tokenizer(*source.gguf)) {
      for (const auto& [name, text] : tokenizer_files(*tokenizer, report.notes)) {
        write_text_file(staged / name, text);
      }
    } else {
      report.notes.emplace_back("the file has no tokenizer, so that none is written");
    }
    return;
  }
  if (options.companions.empty()) {
    return;
  }
  for (const std::filesystem::path& companion : companion_files(options.companions)) {
    std::error_code failure;
    std::filesystem::copy_file(companion, staged / companion.filename(),
                               std::filesystem::copy_options::overwrite_existing, failure);
    if (failure) {
      throw FileError(fmt::format("{}: cannot be copied: {}", companion.string(), failure.message()));
    }
  }
}

void write_safetensors(const ModelFiles& source, const Plan& plan, const std::filesystem::path& staged,
                       const ConvertOptions& options, int threads) {
  std::vector<TensorPlan> tensors;
  for (std::size_t i = 0; i < plan.types.size(); ++i) {
    const FileTensor& tensor = plan.arrangement.tensors[i];
    tensors.push_back({tensor.name, *quant::plain_dtype(plan.types[i]), tensor.shape});
  }
  const std::vector<std::vector<TensorPlan>> shards = checkpoint::plan_shards(tensors, options.max_shard_bytes);
  std::int64_t done = 0;
  std::size_t next = 0;
  for (std::size_t shard = 0; shard < shards.size(); ++shard) {
    // transformers refuses a file whose metadata does not name the framework.
    checkpoint::SafetensorsWriter writer(staged / checkpoint::shard_name(shard, shards.size()), shards[shard],
                                         {{"format", "pt"}});
    RowWriter rows(source, threads, [&](std::span<const std::byte> bytes) {
      writer.append(bytes);
      done += static_cast<std::int64_t>(bytes.size());
      if (options.progress) {
        options.progress("writing", done, plan.bytes);
      }
    });
    for (std::size_t i = 0; i < shards[shard].size(); ++i, ++next) {
      rows.write(plan.arrangement.tensors[next], plan.types[next]);
    }
    writer.finish();
  }
  if (shards.size() > 1) {
    write_text_file(staged / "model.safetensors.index.json", checkpoint::shard_index(shards));
  }
}

void verify(ops::Context& ctx, const ModelFiles& source, const std::filesystem::path& staged,
            const std::filesystem::path& target, const ConvertOptions& options, ConvertReport& report) {
  if (!options.verify) {
    return;
  }
  Progress progress;
  if (options.progress) {
    progress = [&](std::int64_t done, std::int64_t total) { options.progress("checking", done, total); };
  }
  ModelFiles result = open_model(staged);
  result.path = target;  // what messages should name
  report.verification = verify_conversion(ctx, source, result, progress);
}

void convert_to_directory(ops::Context& ctx, const ModelFiles& source, const std::filesystem::path& target,
                          const ConvertOptions& options, ConvertReport& report) {
  const Plan plan = make_plan(source, options, report);
  refuse_foreign_files(target);
  constexpr std::int64_t kHeaderBytesPerTensor = 256;
  AtomicDirectory staged(
      target, options.replace,
      plan.bytes + kSmallFiles + kHeaderBytesPerTensor * static_cast<std::int64_t>(plan.types.size()));
  const std::string config = format_hf_config(source.config, config_dtype(plan), options.dialect);
  write_text_file(staged.path() / "config.json",
                  options.to == Dialect::kTransformerEngine ? transformer_engine_config(config) : config);
  write_text_file(staged.path() / "generation_config.json", format_generation_config(source.config));
  write_companions(source, staged.path(), options, report);
  write_safetensors(source, plan, staged.path(), options, ctx.threads);
  verify(ctx, source, staged.path(), target, options, report);
  staged.commit();
}

// --- GGUF

// llama.cpp's number of a file of mostly that type.
std::uint32_t file_type(const Plan& plan) {
  static constexpr std::pair<BlockType, std::uint32_t> kNumbers[] = {
      {BlockType::kF32, 0},  {BlockType::kF16, 1},  {BlockType::kQ40, 2},  {BlockType::kQ41, 3},  {BlockType::kQ80, 7},
      {BlockType::kQ50, 8},  {BlockType::kQ51, 9},  {BlockType::kQ2K, 10}, {BlockType::kQ3K, 12}, {BlockType::kQ4K, 14},
      {BlockType::kQ5K, 16}, {BlockType::kQ6K, 18}, {BlockType::kBF16, 32}};
  std::map<BlockType, std::int64_t> elements;
  for (std::size_t i = 0; i < plan.types.size(); ++i) {
    const std::vector<std::int64_t>& shape = plan.arrangement.tensors[i].shape;
    elements[plan.types[i]] += shape.size() > 1 ? shape[0] * shape[1] : 0;
  }
  const auto most = std::ranges::max_element(elements, {}, [](const auto& one) { return one.second; });
  for (const auto& [type, number] : kNumbers) {
    if (most != elements.end() && most->first == type) {
      return number;
    }
  }
  constexpr std::uint32_t kGuessed = 1024;
  return kGuessed;
}

void add_tokenizer(const ModelFiles& source, const ConvertOptions& options, std::vector<GgufEntry>& metadata,
                   ConvertReport& report) {
  const std::filesystem::path& folder = options.companions;
  const std::string json = folder.empty() ? "" : read_if_there(folder / "tokenizer.json");
  const std::string config = folder.empty() ? "" : read_if_there(folder / "tokenizer_config.json");
  const std::string chat_template = folder.empty() ? "" : read_if_there(folder / "chat_template.jinja");
  const std::int64_t rows = source.config.model.vocab_size;
  std::optional<GgufTokenizer> tokenizer;
  if (!json.empty()) {
    tokenizer =
        tokenizer_from_files(json, config, chat_template, rows, (folder / "tokenizer.json").string(), report.notes);
  } else if (!folder.empty() && std::filesystem::is_regular_file(folder / "tokenizer.model")) {
    tokenizer = tokenizer_from_model_file(folder / "tokenizer.model", config, chat_template, rows, report.notes);
  } else {
    report.notes.emplace_back(
        "there is no tokenizer.json and no tokenizer.model, so that the file has no tokenizer: it takes and gives ids");
  }
  if (!tokenizer) {
    metadata.push_back({kTokenizerModel, std::string(kNoTokenizer)});
    return;
  }
  // What config.json says of special tokens stands in where the tokenizer's files are silent.
  const auto or_else = [&](std::optional<std::int64_t>& id, std::optional<std::int64_t> other) {
    if (!id && other && *other >= 0 && *other < source.config.model.vocab_size) {
      id = other;
    }
  };
  or_else(tokenizer->bos, source.config.bos_token_id);
  or_else(tokenizer->eos,
          source.config.eos_token_ids.empty() ? std::nullopt : std::optional(source.config.eos_token_ids.front()));
  or_else(tokenizer->pad, source.config.pad_token_id);
  // Chat models name two ends, of text and of a turn; GGUF has a key for each.
  for (const std::int64_t id : source.config.eos_token_ids) {
    if (!tokenizer->eot && tokenizer->eos != id) {
      or_else(tokenizer->eot, id);
    }
  }
  for (GgufEntry& entry : format_gguf_tokenizer(*tokenizer)) {
    metadata.push_back(std::move(entry));
  }
}

// A file's own metadata again, but for what its new types change.
std::vector<GgufEntry> same_metadata(const checkpoint::GgufFile& file, std::uint32_t type) {
  std::vector<GgufEntry> metadata;
  for (const std::string& key : file.metadata().keys()) {
    if (key == "general.file_type") {
      metadata.push_back({key, type});
    } else if (key != "general.alignment") {
      metadata.push_back({key, *file.metadata().find(key)});
    }
  }
  if (file.metadata().find("general.quantization_version") == nullptr) {
    metadata.push_back({"general.quantization_version", std::uint32_t{2}});
  }
  return metadata;
}

// Tensors that are no weights: frequencies of the rotary embedding.
struct Extra {
  GgufTensorPlan plan;
  std::vector<std::byte> bytes;
};

std::vector<Extra> extras_of(const checkpoint::GgufFile& file, const Arrangement& weights) {
  std::vector<Extra> extras;
  for (const checkpoint::GgufTensor& tensor : file.header().tensors) {
    const bool known = std::ranges::any_of(weights.tensors, [&](const auto& one) { return one.name == tensor.name; });
    if (!known && tensor.name.starts_with("rope_")) {
      const quant::BlockMatrix blocks = file.blocks(tensor);
      extras.push_back({{tensor.name, blocks.type, tensor.shape}, {blocks.bytes.begin(), blocks.bytes.end()}});
    }
  }
  return extras;
}

std::vector<Extra> extras_of(const GgufConfig& config) {
  std::vector<Extra> extras;
  for (const GgufExtraTensor& one : config.tensors) {
    const auto bytes = std::as_bytes(std::span(one.values));
    extras.push_back(
        {{one.name, BlockType::kF32, {static_cast<std::int64_t>(one.values.size())}}, {bytes.begin(), bytes.end()}});
  }
  return extras;
}

void require_free_target(const std::filesystem::path& target, bool replace) {
  std::error_code ignored;
  if (!replace && std::filesystem::exists(std::filesystem::symlink_status(target, ignored))) {
    throw FileError(
        fmt::format("{}: exists already; choose another name or ask for it to be replaced", target.string()));
  }
}

// The last name of a path, with or without a slash behind it.
std::string name_of(const std::filesystem::path& path) {
  const std::filesystem::path plain = std::filesystem::absolute(path).lexically_normal();
  return (plain.filename().empty() ? plain.parent_path() : plain).filename().string();
}

void convert_to_gguf(ops::Context& ctx, const ModelFiles& source, const std::filesystem::path& target,
                     const ConvertOptions& options, ConvertReport& report) {
  require_free_target(target, options.replace);
  const Plan plan = make_plan(source, options, report);
  std::vector<GgufEntry> metadata;
  std::vector<Extra> extras;
  if (source.gguf) {
    metadata = same_metadata(*source.gguf, file_type(plan));
    extras = extras_of(*source.gguf, plan.arrangement);
  } else {
    GgufConfig config = format_gguf_config(source.config, config_dtype(plan), file_type(plan), name_of(source.path));
    metadata = std::move(config.metadata);
    extras = extras_of(config);
    report.notes.insert(report.notes.end(), config.notes.begin(), config.notes.end());
    add_tokenizer(source, options, metadata, report);
  }
  std::vector<GgufTensorPlan> tensors;
  for (const Extra& one : extras) {
    tensors.push_back(one.plan);
  }
  for (std::size_t i = 0; i < plan.types.size(); ++i) {
    tensors.push_back({plan.arrangement.tensors[i].name, plan.types[i], plan.arrangement.tensors[i].shape});
  }
  checkpoint::GgufWriter writer(target, metadata, tensors);
  for (const Extra& one : extras) {
    writer.append(one.bytes);
  }
  std::int64_t done = 0;
  RowWriter rows(source, ctx.threads, [&](std::span<const std::byte> bytes) {
    writer.append(bytes);
    done += static_cast<std::int64_t>(bytes.size());
    if (options.progress) {
      options.progress("writing", done, plan.bytes);
    }
  });
  for (std::size_t i = 0; i < plan.types.size(); ++i) {
    rows.write(plan.arrangement.tensors[i], plan.types[i]);
  }
  verify(ctx, source, writer.staged_path(), target, options, report);
  writer.finish();
}

}  // namespace

ConvertReport convert_model(ops::Context& ctx, const ModelFiles& source, const std::filesystem::path& target,
                            const ConvertOptions& options) {
  ConvertReport report;
  if (options.to == Dialect::kGguf) {
    convert_to_gguf(ctx, source, target, options, report);
  } else {
    convert_to_directory(ctx, source, target, options, report);
  }
  return report;
}

}  // namespace caravan::model_io

#include "caravan/model_io/load.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/model_io/rope_rows.h"
#include "caravan/quant/dequantize.h"
#include "caravan/tensor/copy.h"

namespace caravan::model_io {

namespace {

// Elements converted at a time: a staging buffer of a few megabytes.
constexpr std::int64_t kBlock = std::int64_t{1} << 20;

// Rows as stored, converted to the tensor's type.
class RowFiller {
 public:
  RowFiller(const ModelFiles& files, std::size_t part, int threads)
      : files_(files),
        part_(part),
        type_(part_type(files, part)),
        row_bytes_(part_row_bytes(files, part)),
        threads_(threads) {}

  void fill(const Tensor& rows, std::int64_t first) {
    stored_.resize(static_cast<std::size_t>(rows.rows() * row_bytes_));
    read_rows(files_, part_, first, first + rows.rows(), stored_.data());
    const std::byte* from = stored_.data();
    DType dtype = quant::plain_dtype(type_).value_or(DType::kF32);
    if (!quant::plain_dtype(type_)) {
      floats_.resize(static_cast<std::size_t>(rows.elements()));
      const quant::BlockMatrix blocks{type_, rows.rows(), rows.columns(), row_bytes_, stored_, nullptr};
      quant::dequantize_rows(blocks, 0, rows.rows(), floats_.data(), threads_);
      from = reinterpret_cast<const std::byte*>(floats_.data());
    }
    converted_.resize(static_cast<std::size_t>(rows.bytes()));
    convert_elements(rows.dtype(), converted_.data(), dtype, from, rows.elements());
    copy_from_host(rows, converted_);
  }

 private:
  const ModelFiles& files_;
  std::size_t part_;
  quant::BlockType type_;
  std::int64_t row_bytes_;
  int threads_;
  std::vector<std::byte> stored_;
  std::vector<float> floats_;
  std::vector<std::byte> converted_;
};

// Where the first NaN or infinity of a tensor stands, as it is stored.
std::int64_t first_bad_element(const quant::BlockMatrix& tensor) {
  if (const auto dtype = quant::plain_dtype(tensor.type)) {
    return first_non_finite(*dtype, tensor.bytes.data(), tensor.rows * tensor.columns);
  }
  std::vector<float> row(static_cast<std::size_t>(tensor.columns));
  for (std::int64_t r = 0; r < tensor.rows; ++r) {
    quant::dequantize_rows(tensor, r, r + 1, row.data(), 1);
    const std::int64_t found =
        first_non_finite(DType::kF32, reinterpret_cast<const std::byte*>(row.data()), tensor.columns);
    if (found >= 0) {
      return r * tensor.columns + found;
    }
  }
  return -1;
}

std::optional<std::string> non_finite_warning(const ModelFiles& files, std::size_t index) {
  const quant::BlockMatrix& tensor = files.tensors[index];
  const FileTensor& facts = files.arrangement.tensors[index];
  std::int64_t element = first_bad_element(tensor);
  if (element < 0) {
    return std::nullopt;
  }
  std::vector<float> row(static_cast<std::size_t>(tensor.columns));
  const std::int64_t r = element / tensor.columns;
  quant::dequantize_rows(tensor, r, r + 1, row.data(), 1);
  const float value = row[static_cast<std::size_t>(element % tensor.columns)];
  std::vector<std::int64_t> place(facts.shape.size());
  for (std::size_t axis = facts.shape.size(); axis-- > 0;) {
    place[axis] = element % facts.shape[axis];
    element /= facts.shape[axis];
  }
  return fmt::format("{}: tensor \"{}\" holds {} at [{}]; results that depend on it will not be numbers",
                     files.tensor_files[index], facts.name, value, fmt::join(place, ", "));
}

// A tied head that the files also store must be the embedding; transformers may use it when it is not.
void check_tied_copy(const ModelFiles& files, std::vector<std::string>& warnings) {
  constexpr const char* kHead = "lm_head.weight";
  constexpr const char* kEmbedding = "model.embed_tokens.weight";
  if (files.kind != SourceKind::kHuggingFace || !files.config.model.tie_word_embeddings) {
    return;
  }
  const checkpoint::SafetensorsSet set = checkpoint::SafetensorsSet::open(files.path);
  const auto copy = set.find(kHead);
  if (!copy) {
    return;
  }
  const auto a = copy->bytes();
  const auto b = set.find(kEmbedding).value().bytes();
  if (a.size() != b.size() || std::memcmp(a.data(), b.data(), a.size()) != 0) {
    warnings.push_back(fmt::format("{}: \"{}\" differs from \"{}\" although config.json ties them; the latter is used",
                                   copy->file->path().string(), kHead, kEmbedding));
  }
}

bool is_matrix(const FileTensor& tensor) {
  return tensor.shape.size() > 1;
}

// What the options say, with kAuto decided.
bool keeps_matrices(const ModelFiles& files, MatrixForm form) {
  if (form != MatrixForm::kAuto) {
    return form == MatrixForm::kAsStored;
  }
  return files.kind == SourceKind::kGguf && std::ranges::any_of(files.tensors, [](const quant::BlockMatrix& tensor) {
           return !quant::plain_dtype(tensor.type);
         });
}

// The rows of a part where they lie, in the order of the file's rotary pairing.
void append_pieces(const ModelFiles& files, std::size_t part, std::vector<quant::BlockMatrix>& pieces) {
  const std::vector<PlaceRun>& runs = files.arrangement.places[part];
  if (files.kind == SourceKind::kGguf) {
    pieces.push_back(files.tensors[static_cast<std::size_t>(runs.front().tensor)]);
    return;
  }
  for (const PlaceRun& run : runs) {
    quant::BlockMatrix piece = files.tensors[static_cast<std::size_t>(run.tensor)];
    piece.rows = run.count;
    piece.bytes = piece.row_range(run.begin, run.begin + run.count);
    pieces.push_back(std::move(piece));
  }
}

std::map<std::string, ops::Weight> matrices_as_stored(const ModelFiles& files, const std::vector<ParamSpec>& specs,
                                                      DType dtype) {
  std::map<std::string, ops::Weight> result;
  std::size_t part = 0;  // the arrangement's parts are those of the same table
  for (const ParamSpec& spec : specs) {
    if (!spec.alias_of.empty()) {
      continue;
    }
    std::vector<quant::BlockMatrix> pieces;
    for (std::size_t i = 0; i < spec.parts.size(); ++i, ++part) {
      if (spec.shape.rank() == 2) {
        append_pieces(files, part, pieces);
      }
    }
    if (!pieces.empty()) {
      result.emplace(spec.name, ops::Weight::in_blocks(std::move(pieces), dtype));
    }
  }
  return result;
}

void fill_weights(ops::Context& ctx, LoadedModel& model, const ModelFiles& files, const LoadOptions& options) {
  const bool kept = keeps_matrices(files, options.matrices);
  for (std::size_t i = 0; options.check_finite && i < files.tensors.size(); ++i) {
    if (kept && is_matrix(files.arrangement.tensors[i])) {
      continue;
    }
    if (auto warning = non_finite_warning(files, i)) {
      model.warnings.push_back(*std::move(warning));
    }
  }
  const std::int64_t total = total_bytes(files);
  std::int64_t done = 0;
  std::size_t index = 0;  // the store's parts and the arrangement's are those of the same table
  for (autograd::Parameter& parameter : model.weights->parameters()) {
    for (const ParamPart& part : parameter.spec.parts) {
      if (!parameter.weight.is_in_blocks()) {
        fill_rows(files, index, 0, part.shape[0], autograd::part_rows(parameter.stored(), part),
                  model.config.model.rope_pairing, ctx.threads);
      }
      done += part.shape[0] * part_row_bytes(files, index);
      if (options.progress) {
        options.progress(done, total);
      }
      ++index;
    }
  }
  model.weights->masters_changed(ctx);
}

}  // namespace

void fill_rows(const ModelFiles& files, std::size_t part, std::int64_t begin, std::int64_t end, const Tensor& target,
               ops::RopePairing pairing, int threads) {
  RowFiller filler(files, part, threads);
  const ParamPart& facts = files.arrangement.parts[part];
  if (pairing == ops::RopePairing::kInterleaved && has_rotary_rows(facts.name)) {
    const std::vector<std::int64_t> order = interleaved_from_half(facts.shape[0], files.config.model.head_dim);
    for (std::int64_t row = begin; row < end; ++row) {
      filler.fill(target.row_range(row - begin, row - begin + 1), order[static_cast<std::size_t>(row)]);
    }
    return;
  }
  const std::int64_t rows_per_block = std::max<std::int64_t>(1, kBlock / std::max<std::int64_t>(1, target.columns()));
  for (std::int64_t row = begin; row < end; row += rows_per_block) {
    const std::int64_t last = std::min(end, row + rows_per_block);
    filler.fill(target.row_range(row - begin, last - begin), row);
  }
}

LoadedModel load_model(ops::Context& ctx, const std::filesystem::path& path, DType dtype, const LoadOptions& options) {
  const ModelFiles files = open_model(path);
  LoadedModel model;
  model.config = files.config;
  model.warnings = model.config.warnings;
  if (options.adjust) {
    options.adjust(model.config.model);
  }
  const bool kept = keeps_matrices(files, options.matrices);
  if (kept && options.training) {
    throw InputError(fmt::format("{}: no gradient goes through matrices as they are stored; load them as f32 or bf16",
                                 path.string()));
  }
  if (kept && files.kind == SourceKind::kGguf) {
    model.config.model.rope_pairing = ops::RopePairing::kInterleaved;
  } else if (kept) {
    model.config.model.rope_pairing = ops::RopePairing::kRotateHalf;
  }
  const std::vector<ParamSpec> specs = model::parameter_specs(model.config.model);
  model.weights = options.training
                      ? autograd::WeightStore::for_training(ctx, specs, dtype)
                      : std::make_unique<autograd::WeightStore>(
                            ctx, specs, dtype,
                            kept ? matrices_as_stored(files, specs, dtype) : std::map<std::string, ops::Weight>{});
  if (!ctx.dry_run()) {
    check_tied_copy(files, model.warnings);
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
    autograd::initialize(ctx, *model.weights, seed);
  }
  if (training) {
    model.weights->allocate_gradients(ctx);
  }
  model.llama = std::make_unique<model::Llama>(config.model, *model.weights);
  return model;
}

}  // namespace caravan::model_io

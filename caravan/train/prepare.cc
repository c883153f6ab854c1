#include "caravan/train/prepare.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/base/threads.h"
#include "caravan/model_io/save.h"
#include "caravan/train/setup.h"

namespace caravan::train {

namespace {

namespace fs = std::filesystem;

fs::path tokenizer_path(const Config& config) {
  if (!config.model.hf_assets_path.empty()) {
    return config.model.hf_assets_path;
  }
  const fs::path start = config.checkpoint.initial_load_path;
  return config.checkpoint.initial_load_in_hf && tokenizer::tokenizer_file(start) ? start : fs::path();
}

// Files that an export takes along, one a name: the model's own, then the tokenizer's.
std::vector<fs::path> companions_of(const Config& config) {
  std::vector<fs::path> result;
  const fs::path path = tokenizer_path(config);
  if (!path.empty()) {
    std::error_code ignored;
    const fs::path directory = fs::is_directory(path, ignored) ? path : path.parent_path();
    for (const fs::path& file : model_io::companion_files(directory.empty() ? "." : directory)) {
      const std::string name = file.filename().string();
      if (name.starts_with("tokenizer") || name == "special_tokens_map.json" || name == "added_tokens.json") {
        result.push_back(file);
      }
    }
  }
  if (config.checkpoint.initial_load_in_hf) {
    for (const fs::path& file : model_io::companion_files(config.checkpoint.initial_load_path)) {
      const bool there =
          std::ranges::any_of(result, [&](const fs::path& p) { return p.filename() == file.filename(); });
      const std::string name = file.filename().string();
      // The start model's description is its own.
      if (!there && name != "README.md") {
        result.push_back(file);
      }
    }
  }
  return result;
}

std::vector<data::Documents> documents_of(const Config& config, const std::vector<std::string>& paths,
                                          const tokenizer::Tokenizer* tokenizer, std::int64_t vocab_size,
                                          const PrepareProgress& progress) {
  std::vector<data::Documents> sets;
  for (const std::string& path : paths) {
    data::PrepareOptions options;
    options.cache = config.training.dataset_cache.empty() ? fs::path(config.job.dump_folder) / "data"
                                                          : fs::path(config.training.dataset_cache);
    options.tokenizer = tokenizer;
    options.vocab_size = vocab_size;
    options.threads = config.training.threads > 0 ? static_cast<int>(config.training.threads) : usable_cores();
    if (progress) {
      options.progress = [&](std::int64_t done, std::int64_t total) { progress(path, done, total); };
    }
    sets.push_back(data::prepare(path, options));
  }
  return sets;
}

// A row may be longer than the model's length as long as the sequences in it are not.
void check_lengths(const data::Documents& documents, std::int64_t seq_len, const model::LlamaConfig& model) {
  const std::int64_t most = nn::max_sequence_length(model.rope);
  if (seq_len <= most) {
    return;
  }
  for (std::int64_t i = 0; i < documents.size(); ++i) {
    const auto length = static_cast<std::int64_t>(documents[i].size());
    if (length > most) {
      throw ConfigError(fmt::format(
          "training.seq_len {} lets sequences of {} ids into a row (document {}), and the model's length is {}; lower "
          "training.seq_len to it, or raise model.max_position_embeddings",
          seq_len, std::min(length, seq_len), i + 1, most));
    }
  }
}

// What no sequence of two ids is cut from would train nothing, and say a loss of 0.
void require_targets(const data::Documents& documents, std::int64_t seq_len, const char* key) {
  if (seq_len < 2) {
    throw ConfigError(
        fmt::format("{} {}: a sequence needs two ids, one to predict the other; give at least 2", key, seq_len));
  }
  for (std::int64_t i = 0; i < documents.size(); ++i) {
    if (documents[i].size() > 1) {
      return;
    }
  }
  throw InputError("no document of the data set has two ids, so that there is nothing to predict; give longer ones");
}

void prepare_validation(const Config& config, Prepared& prepared, std::vector<data::Documents>& sets,
                        const PrepareProgress& progress) {
  if (!config.validation.enable) {
    return;
  }
  std::vector<data::Documents> held_out;
  if (!config.validation.dataset_path.empty()) {
    held_out = documents_of(config, config.validation.dataset_path, prepared.tokenizer ? &*prepared.tokenizer : nullptr,
                            prepared.architecture.model.vocab_size, progress);
  } else {
    for (data::Documents& set : sets) {
      auto [train, rest] = set.split(config.validation.fraction);
      set = train;
      held_out.push_back(rest);
    }
  }
  data::RowOptions options = row_options(config);
  options.seq_len = config.validation.seq_len > 0 ? config.validation.seq_len : config.training.seq_len;
  options.shuffle = false;
  options.epochs = 1;
  options.weights.clear();
  const data::Documents all = data::Documents::concatenate(held_out);
  check_lengths(all, options.seq_len, prepared.architecture.model);
  try {
    require_targets(all, options.seq_len, "validation.seq_len");
    prepared.validation = std::make_unique<data::Rows>(held_out, options);
  } catch (const InputError& error) {
    throw InputError(fmt::format("validation: {}", error.what()));
  }
  const std::int64_t most = config.validation.steps < 0 ? prepared.validation->total_rows()
                                                        : config.validation.steps * config.validation.local_batch_size;
  prepared.validation_rows = std::min(prepared.validation->total_rows(), most);
}

}  // namespace

std::optional<tokenizer::Tokenizer> find_tokenizer(const Config& config) {
  const fs::path path = tokenizer_path(config);
  if (path.empty()) {
    return std::nullopt;
  }
  return tokenizer::Tokenizer::load(path);
}

std::optional<model_io::HfConfig> start_config(const Config& config) {
  if (!config.checkpoint.initial_load_in_hf) {
    return std::nullopt;
  }
  const std::filesystem::path path = config.checkpoint.initial_load_path;
  if (is_checkpoint(path)) {
    throw ConfigError(fmt::format(
        "checkpoint.initial_load_path {}: is a checkpoint of a training; leave out checkpoint.initial_load_in_hf",
        path.string()));
  }
  return model_io::read_hf_config(path);
}

Prepared prepare(const Config& config, const PrepareProgress& progress) {
  if (config.training.dataset_path.empty()) {
    throw ConfigError("training.dataset_path is missing: name text files, JSONL, token shards or a directory of them");
  }
  Prepared prepared;
  prepared.tokenizer = find_tokenizer(config);
  if (config.sampling.freq > 0 && !prepared.tokenizer) {
    throw ConfigError(
        "sampling.prompts are text, and there is no tokenizer; set model.hf_assets_path, or sampling.freq 0");
  }
  prepared.start = start_config(config);
  const tokenizer::Tokenizer* tokenizer = prepared.tokenizer ? &*prepared.tokenizer : nullptr;
  prepared.architecture = architecture(config, prepared.start, tokenizer);
  prepared.companions = companions_of(config);

  std::vector<data::Documents> sets =
      documents_of(config, config.training.dataset_path, tokenizer, prepared.architecture.model.vocab_size, progress);
  prepare_validation(config, prepared, sets, progress);
  const data::Documents all = data::Documents::concatenate(sets);
  check_lengths(all, config.training.seq_len, prepared.architecture.model);
  require_targets(all, config.training.seq_len, "training.seq_len");
  prepared.data = {
      all.size(),       all.tokens(), config.training.seq_len, config.training.packing, config.training.shuffle,
      config.debug.seed};
  prepared.rows = std::make_unique<data::Rows>(std::move(sets), row_options(config));
  return prepared;
}

}  // namespace caravan::train

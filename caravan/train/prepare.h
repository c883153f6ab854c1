// Everything of a run that is settled before the first step: tokenizer, data, architecture.
#pragma once

#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/data/rows.h"
#include "caravan/model_io/hf_config.h"
#include "caravan/tokenizer/tokenizer.h"
#include "caravan/train/config.h"
#include "caravan/train/resume.h"

namespace caravan::train {

struct Prepared {
  std::optional<tokenizer::Tokenizer> tokenizer;
  std::vector<std::filesystem::path> companions;  // tokenizer files, and those of the model that training starts from
  std::optional<model_io::HfConfig> start;        // of the Hugging Face directory that training starts from
  model_io::HfConfig architecture;
  std::unique_ptr<data::Rows> rows;
  std::unique_ptr<data::Rows> validation;  // nullptr without
  std::int64_t validation_rows = 0;
  DataIdentity data;
};

// The tokenizer that the configuration names: model.hf_assets_path, else the one beside the model that training starts
// from, else none.
std::optional<tokenizer::Tokenizer> find_tokenizer(const Config& config);

// config.json of checkpoint.initial_load_path where checkpoint.initial_load_in_hf is set.
std::optional<model_io::HfConfig> start_config(const Config& config);

// Reads and tokenises the data where that was not done before; `progress` hears of it (data set, bytes done, bytes).
// Throws ConfigError, InputError, FormatError and FileError in one sentence each.
using PrepareProgress = std::function<void(const std::string& dataset, std::int64_t done, std::int64_t total)>;
Prepared prepare(const Config& config, const PrepareProgress& progress);

}  // namespace caravan::train

// What a model's files hold, without reading a weight.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "caravan/model_io/hf_config.h"
#include "caravan/model_io/model_files.h"

namespace caravan::model_io {

struct ModelSummary {
  SourceKind kind = SourceKind::kHuggingFace;
  HfConfig config;
  std::int64_t parameters = 0;                        // stored elements; a tied head counted once
  std::map<std::string, std::int64_t> dtype_tensors;  // file's name of the type -> tensors
  std::int64_t file_count = 0;
  std::int64_t tensor_count = 0;
  std::int64_t weight_bytes = 0;      // in the files
  std::vector<std::string> problems;  // why it would not load, one sentence each
};

// Of whatever open_model opens.  Throws what reading the configuration and the headers throws.
ModelSummary inspect_model(const std::filesystem::path& path);

}  // namespace caravan::model_io

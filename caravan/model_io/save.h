// A model into a Hugging Face directory that transformers loads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "caravan/model_io/load.h"

namespace caravan::model_io {

struct SaveOptions {
  DType dtype = DType::kF32;                                   // of the tensors in the files
  std::map<std::string, DType> dtypes;                         // of single ones that have another, by name
  std::int64_t max_shard_bytes = std::int64_t{5'000'000'000};  // a larger model gets several files and an index
  bool replace = false;                                        // an existing model directory may be replaced
  RopeDialect dialect = RopeDialect::kRopeScaling;
  std::vector<std::filesystem::path> companions;  // files to copy in beside the weights (tokenizer, generation config)
  Progress progress;
};

// The files of a model directory that are neither config nor weights and go along with a copy of the model: tokenizer,
// chat template, generation_config.json.  Those that exist, in a fixed order.
std::vector<std::filesystem::path> companion_files(const std::filesystem::path& directory);

// Replacing a directory removes it: throws FileError when it holds anything but a model's files.
void refuse_foreign_files(const std::filesystem::path& directory);

// Writes config.json, generation_config.json (unless a companion of that name is copied) and the weights, tensor by
// tensor, beside the target, and renames the whole: the directory is there complete or not at all.  Free space is
// checked first; no more than one tensor is in memory at a time.  A directory that holds anything but a model's files
// is not replaced, whatever `replace` says.
// Throws FileError, and InputError when a finite weight has no finite value in the type asked for; what stood at the
// target is then as it was.
void save_model(const LoadedModel& model, const std::filesystem::path& directory, const SaveOptions& options = {});

}  // namespace caravan::model_io

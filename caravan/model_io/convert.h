// One model's files into another format, tensor by tensor.
//
// No more than a few megabytes of weights are in memory while they are written; the source is read where it is mapped.
// The result appears whole or not at all, after it was opened again and compared with its source.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "caravan/model_io/model_files.h"
#include "caravan/model_io/save.h"
#include "caravan/model_io/verify.h"

namespace caravan::model_io {

struct ConvertOptions {
  Dialect to = Dialect::kHuggingFace;
  // Of the weights; nothing: the source's own, as far as the target can hold them.  See plan_types().
  std::optional<quant::BlockType> type;
  std::int64_t max_shard_bytes = std::int64_t{5'000'000'000};  // of safetensors
  bool replace = false;                                        // the target may exist
  RopeDialect dialect = RopeDialect::kRopeScaling;             // of config.json
  // Where a Hugging Face directory's or checkpoint's tokenizer and generation settings lie; empty: nowhere.
  std::filesystem::path companions;
  bool verify = true;
  // Told how far a phase ("writing", "checking") is; what it throws ends the work, and the target is as it was.
  std::function<void(const char* phase, std::int64_t done, std::int64_t total)> progress;
};

struct ConvertReport {
  std::map<std::string, std::int64_t> types;  // name of a type -> tensors that have it
  std::int64_t bytes = 0;                     // of tensors in the result
  std::vector<std::string> notes;             // what was dropped or chosen otherwise: one sentence each
  std::optional<Verification> verification;
};

// The type of each tensor of `target`, in its order.
//
//   safetensors   the type asked for; else the source's own where it is plain, f32 for blocks.  Vectors that a GGUF file
//                 keeps in f32 get the matrices' type where they lose nothing by it
//   GGUF          vectors f32 (llama.cpp wants it); matrices the type asked for, else the source's own.  The head (or the
//                 embedding that serves as one) is Q6_K where a type of 4 or 5 bits was asked for, as in llama.cpp's own
//                 files.  Rows that are no whole number of blocks of 256 are Q5_0 for Q4_K and Q8_0 for Q6_K; rows that
//                 are no multiple of 32 are F16
//
// Appends to `notes` what was not as asked for.  Throws InputError for a type that the target cannot have.
std::vector<quant::BlockType> plan_types(const ModelFiles& source, const Arrangement& target, Dialect dialect,
                                         std::optional<quant::BlockType> asked, std::vector<std::string>& notes);

// Writes the model to `target`: a directory, or a GGUF file.
// Throws FileError when the target exists and may not be replaced, cannot be written or free space is short; InputError
// when a weight has no value in the type asked for (naming both); UnsupportedError when the target's format cannot hold
// the model; what verify_conversion() throws.  The target is then as it was.
ConvertReport convert_model(ops::Context& ctx, const ModelFiles& source, const std::filesystem::path& target,
                            const ConvertOptions& options);

}  // namespace caravan::model_io

// A model's files, opened: what they are, and their weights where they lie.
//
// Nothing but headers and metadata is read to open them; weights are views of mapped files, in the types and the order
// of rows that the files have, and are asked for by the names of the table of parameters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "caravan/checkpoint/gguf.h"
#include "caravan/checkpoint/safetensors.h"
#include "caravan/model_io/arrangement.h"
#include "caravan/model_io/hf_config.h"
#include "caravan/quant/block_type.h"

namespace caravan::model_io {

enum class SourceKind { kHuggingFace, kGguf, kTransformerEngine, kCheckpoint };

// "a Hugging Face directory", "a GGUF file", ...
const char* to_string(SourceKind kind);

struct ModelFiles {
  SourceKind kind = SourceKind::kHuggingFace;
  std::filesystem::path path;
  HfConfig config;
  Arrangement arrangement;                   // of the files
  std::vector<quant::BlockMatrix> tensors;   // of arrangement.tensors; a vector of n is [n, 1]
  std::vector<std::string> tensor_files;     // the file that each lies in, for messages
  std::optional<checkpoint::GgufFile> gguf;  // of kGguf: metadata and tokenizer
  std::shared_ptr<const void> keep;          // what else keeps the mappings alive
};

// Opens a Hugging Face directory, a directory of TransformerEngine's names, or a GGUF file; content decides, not names.
// Throws what reading configuration and headers throws, and FormatError that names every missing, extra and misshapen
// tensor; where `problems` is given these sentences go there instead, and the result has no tensors.
ModelFiles open_model(const std::filesystem::path& path, std::vector<std::string>* problems = nullptr);

// The same of a GGUF file that is open.
ModelFiles open_model(const checkpoint::GgufFile& file, std::vector<std::string>* problems = nullptr);

// The configuration alone.
HfConfig read_model_config(const std::filesystem::path& path);

// The number of a part by name.  Throws ShapeError when there is none.
std::size_t part_index(const ModelFiles& files, const std::string& part);

// The type that a part's rows are stored in.
quant::BlockType part_type(const ModelFiles& files, std::size_t part);

// Bytes of a part's row as stored.
std::int64_t part_row_bytes(const ModelFiles& files, std::size_t part);

// Bytes of all tensors.
std::int64_t total_bytes(const ModelFiles& files);

// Rows [begin, end) of a part, in Hugging Face's order, as stored.  `out` has part_row_bytes() for each.
void read_rows(const ModelFiles& files, std::size_t part, std::int64_t begin, std::int64_t end, std::byte* out);

// The same as f32, [end - begin, columns]; f64 rounded once, blocks dequantised.  `staging` is scratch that callers keep.
void read_floats(const ModelFiles& files, std::size_t part, std::int64_t begin, std::int64_t end, float* out,
                 std::vector<std::byte>& staging, int threads);

// What a file holds under a name, for disagreements().
struct FoundTensor {
  std::vector<std::int64_t> shape;
  std::string type_name;
  bool usable = false;  // a weight may have this type
};

// Compares what is there with what the arrangement wants.  Returns one sentence for each kind of disagreement (missing,
// extra, misshapen, of a type that weights cannot have), all names in it; empty when they agree.  `asks` says who wants
// it: "config.json".  Names for which `ignorable` holds are not extra.
std::vector<std::string> disagreements(const std::map<std::string, FoundTensor>& found, const Arrangement& wanted,
                                       const std::string& asks,
                                       const std::function<bool(const std::string&)>& ignorable);

}  // namespace caravan::model_io

#include "caravan/model_io/inspect.h"

#include "caravan/checkpoint/safetensors.h"

namespace caravan::model_io {

namespace {

void count_gguf(const checkpoint::GgufFile& file, ModelSummary& summary) {
  summary.file_count = 1;
  for (const checkpoint::GgufTensor& tensor : file.header().tensors) {
    ++summary.tensor_count;
    ++summary.dtype_tensors[tensor.type->name];
    summary.weight_bytes += tensor.bytes;
  }
}

void count_directory(const std::filesystem::path& path, ModelSummary& summary) {
  const checkpoint::SafetensorsSet files = checkpoint::SafetensorsSet::open(path);
  summary.file_count = static_cast<std::int64_t>(files.files().size());
  summary.weight_bytes = files.total_bytes();
  for (const checkpoint::SafetensorsFile& file : files.files()) {
    for (const checkpoint::TensorEntry& entry : file.header().entries) {
      ++summary.tensor_count;
      ++summary.dtype_tensors[entry.dtype_name];
    }
  }
}

}  // namespace

ModelSummary inspect_model(const std::filesystem::path& path) {
  ModelSummary summary;
  const ModelFiles files = open_model(path, &summary.problems);
  summary.kind = files.kind;
  summary.config = files.config;
  summary.parameters = parameter_count(model::parameter_specs(summary.config.model));
  if (files.gguf) {
    count_gguf(*files.gguf, summary);
  } else {
    count_directory(path, summary);
  }
  return summary;
}

}  // namespace caravan::model_io

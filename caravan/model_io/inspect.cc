#include "caravan/model_io/inspect.h"

#include "caravan/checkpoint/safetensors.h"
#include "caravan/model_io/load.h"

namespace caravan::model_io {

ModelSummary inspect_model(const std::filesystem::path& directory) {
  ModelSummary summary;
  summary.config = read_hf_config(directory);
  const std::vector<ParamSpec> specs = model::parameter_specs(summary.config.model);
  summary.parameters = parameter_count(specs);
  const checkpoint::SafetensorsSet files = checkpoint::SafetensorsSet::open(directory);
  summary.file_count = static_cast<std::int64_t>(files.files().size());
  summary.weight_bytes = files.total_bytes();
  for (const checkpoint::SafetensorsFile& file : files.files()) {
    for (const checkpoint::TensorEntry& entry : file.header().entries) {
      ++summary.tensor_count;
      ++summary.dtype_tensors[entry.dtype_name];
    }
  }
  summary.problems = disagreements(files, specs);
  return summary;
}

}  // namespace caravan::model_io

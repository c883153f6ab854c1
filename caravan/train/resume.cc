#include "caravan/train/resume.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/base/text.h"
#include "caravan/base/version.h"

namespace caravan::train {

namespace {

constexpr const char* kOptimizerPrefix = "optimizer.";

// One typed field of the state; strangers write files too.
template <typename T>
T field(const Json& json, const char* name, const std::string& source) {
  const auto found = json.find(name);
  bool fits = json.is_object() && found != json.end();
  if (fits) {
    if constexpr (std::is_same_v<T, std::string>) {
      fits = found->is_string();
    } else if constexpr (std::is_same_v<T, bool>) {
      fits = found->is_boolean();
    } else if constexpr (std::is_floating_point_v<T>) {
      fits = found->is_number();
    } else {
      fits = found->is_number_integer() && found->template get<std::int64_t>() >= 0;
    }
  }
  if (!fits) {
    throw FormatError(fmt::format("{}: state: \"{}\" is missing or of the wrong type", source, name));
  }
  return found->template get<T>();
}

const Json& object(const Json& json, const char* name, const std::string& source) {
  const auto found = json.find(name);
  if (!json.is_object() || found == json.end() || !found->is_object()) {
    throw FormatError(fmt::format("{}: state: \"{}\" is missing or no object", source, name));
  }
  return *found;
}

void check_same_model(const Trainer& trainer, const checkpoint::CheckpointReader& reader,
                      const std::vector<checkpoint::NamedTensor>& expected) {
  const checkpoint::Manifest& manifest = reader.manifest();
  for (const checkpoint::NamedTensor& one : expected) {
    const auto found = manifest.tensors.find(one.name);
    if (found == manifest.tensors.end()) {
      throw ConfigError(
          fmt::format("{}: this checkpoint is of another model: it has no \"{}\"; choose another "
                      "job.dump_folder, or the model that was trained there",
                      reader.directory().string(), one.name));
    }
    const auto extents = one.tensor.shape().extents();
    const std::vector<std::int64_t> shape(extents.begin(), extents.end());
    if (found->second.shape != shape) {
      throw ConfigError(fmt::format(
          "{}: this checkpoint is of another model: \"{}\" is [{}], here it is [{}]; choose "
          "another job.dump_folder, or the model that was trained there",
          reader.directory().string(), one.name, fmt::join(found->second.shape, ", "), fmt::join(shape, ", ")));
    }
  }
  std::size_t stored = 0;
  for (const auto& [name, tensor] : manifest.tensors) {
    stored += name.starts_with(kOptimizerPrefix) ? 0 : 1;
  }
  if (stored != trainer.model_tensors().size()) {
    throw ConfigError(
        fmt::format("{}: this checkpoint is of another model: it has {} tensors, here there are {}; choose "
                    "another job.dump_folder, or the model that was trained there",
                    reader.directory().string(), stored, trainer.model_tensors().size()));
  }
}

}  // namespace

Machine machine_of(const ops::Context& ctx, DType compute) {
  return {version(), to_string(ctx.isa), ctx.threads, ops::to_string(ctx.backend), to_string(compute)};
}

Json to_json(const TrainState& state) {
  Json json = Json::object();
  json["step"] = state.step;
  json["optimizer_steps"] = state.optimizer_steps;
  json["schedule_steps"] = state.schedule_steps;
  json["n_tokens_seen"] = state.n_tokens_seen;
  json["next_row"] = state.next_row;
  if (state.loss_scaler) {
    json["loss_scale"] = state.loss_scaler->scale;
    json["loss_scale_good_steps"] = state.loss_scaler->good_steps;
  }
  json["data"] = {{"documents", state.data.documents}, {"tokens", state.data.tokens},   {"seq_len", state.data.seq_len},
                  {"packing", state.data.packing},     {"shuffle", state.data.shuffle}, {"seed", state.data.seed}};
  json["machine"] = {{"version", state.machine.version},
                     {"isa", state.machine.isa},
                     {"threads", state.machine.threads},
                     {"backend", state.machine.backend},
                     {"compute_dtype", state.machine.compute_dtype}};
  json["model"] = state.model;
  json["config"] = state.config;
  return json;
}

TrainState parse_train_state(const Json& json, const std::string& source) {
  TrainState state;
  state.step = field<std::int64_t>(json, "step", source);
  state.optimizer_steps = field<std::int64_t>(json, "optimizer_steps", source);
  state.schedule_steps =
      json.contains("schedule_steps") ? field<std::int64_t>(json, "schedule_steps", source) : state.step;
  state.n_tokens_seen = field<std::int64_t>(json, "n_tokens_seen", source);
  state.next_row = field<std::int64_t>(json, "next_row", source);
  if (json.contains("loss_scale")) {
    state.loss_scaler.emplace();
    state.loss_scaler->scale = field<double>(json, "loss_scale", source);
    state.loss_scaler->good_steps = field<std::int64_t>(json, "loss_scale_good_steps", source);
    if (!(state.loss_scaler->scale >= optim::LossScaler::kLeast && std::isfinite(state.loss_scaler->scale))) {
      throw FormatError(fmt::format("{}: \"loss_scale\" is {}, which no run has", source, state.loss_scaler->scale));
    }
  }
  const Json& data = object(json, "data", source);
  state.data = {field<std::int64_t>(data, "documents", source), field<std::int64_t>(data, "tokens", source),
                field<std::int64_t>(data, "seq_len", source),   field<std::string>(data, "packing", source),
                field<bool>(data, "shuffle", source),           field<std::int64_t>(data, "seed", source)};
  const Json& machine = object(json, "machine", source);
  state.machine = {field<std::string>(machine, "version", source), field<std::string>(machine, "isa", source),
                   field<std::int64_t>(machine, "threads", source), field<std::string>(machine, "backend", source),
                   field<std::string>(machine, "compute_dtype", source)};
  state.model = field<std::string>(json, "model", source);
  state.config = field<std::string>(json, "config", source);
  return state;
}

bool holds_optimizer(const checkpoint::CheckpointReader& reader) {
  return std::ranges::any_of(reader.manifest().tensors,
                             [](const auto& one) { return one.first.starts_with(kOptimizerPrefix); });
}

TrainState load_into(Trainer& trainer, const checkpoint::CheckpointReader& reader, const LoadParts& parts) {
  const TrainState saved = parse_train_state(reader.state(), (reader.directory() / "manifest.json").string());
  if (parts.optimizer && !holds_optimizer(reader)) {
    throw ConfigError(
        fmt::format("{}: holds the weights alone (checkpoint.last_save_model_only), so that its run cannot be "
                    "continued; train on from them in another job.dump_folder with checkpoint.initial_load_path",
                    reader.directory().string()));
  }
  const std::vector<checkpoint::NamedTensor> wanted = parts.optimizer ? trainer.tensors() : trainer.model_tensors();
  check_same_model(trainer, reader, wanted);
  for (const checkpoint::NamedTensor& one : wanted) {
    reader.read(one.name, one.tensor);
  }
  TrainState state = saved;
  state.next_row = parts.dataloader ? saved.next_row : 0;
  state.step = parts.train_state ? saved.step : 0;
  state.schedule_steps = parts.lr_scheduler ? saved.schedule_steps : 0;
  state.n_tokens_seen = parts.train_state ? saved.n_tokens_seen : 0;
  state.optimizer_steps = parts.optimizer ? saved.optimizer_steps : 0;
  trainer.restored(state.step, state.optimizer_steps, state.n_tokens_seen, state.schedule_steps);
  if (saved.loss_scaler && parts.optimizer) {
    trainer.set_loss_scale(saved.loss_scaler->scale, saved.loss_scaler->good_steps);
  }
  return state;
}

std::vector<std::string> changes_since(const TrainState& saved, const DataIdentity& data, const Machine& machine) {
  std::vector<std::string> result;
  if (saved.data != data) {
    result.push_back(
        fmt::format("the data are not those of the checkpoint ({} documents and {} tokens in rows of {} then, {} and "
                    "{} in rows of {} "
                    "now, packing, shuffling and seed counted too): training goes on at row {} of the new ones",
                    grouped(saved.data.documents), grouped(saved.data.tokens), saved.data.seq_len,
                    grouped(data.documents), grouped(data.tokens), data.seq_len, grouped(saved.next_row)));
  }
  const auto compare = [&](const char* what, const auto& before, const auto& now) {
    if (before != now) {
      result.push_back(
          fmt::format("{} was {} when the checkpoint was written and is {} now: results will not be the "
                      "same to the bit",
                      what, before, now));
    }
  };
  compare("Caravan's version", saved.machine.version, machine.version);
  compare("the instruction set", saved.machine.isa, machine.isa);
  compare("the number of threads", saved.machine.threads, machine.threads);
  compare("the backend", saved.machine.backend, machine.backend);
  compare("the compute type", saved.machine.compute_dtype, machine.compute_dtype);
  return result;
}

std::vector<std::string> model_changes(const TrainState& saved, const model_io::HfConfig& architecture) {
  const Json before = parse_json(saved.model, "the checkpoint's \"model\"");
  const Json now = parse_json(model_io::format_hf_config(architecture, DType::kF32), "config.json");
  std::vector<std::string> result;
  for (const auto& [name, value] : now.items()) {
    const auto found = before.find(name);
    const std::string was = found == before.end() ? "nothing" : found->dump();
    if (was == value.dump()) {
      continue;
    }
    if (name == "num_attention_heads" || name == "num_key_value_heads") {
      throw ConfigError(
          fmt::format("the checkpoint is of another model: {} was {}, here it is {}; choose another "
                      "job.dump_folder, or the model that was trained there",
                      name, was, value.dump()));
    }
    result.push_back(fmt::format("the model's {} was {} and is {} now", name, was, value.dump()));
  }
  return result;
}

model_io::ModelFiles open_checkpoint_files(const std::filesystem::path& directory) {
  const checkpoint::CheckpointReader reader = checkpoint::CheckpointReader::open(directory);
  const std::string source = (directory / "manifest.json").string();
  const TrainState state = parse_train_state(reader.state(), source);
  model_io::ModelFiles files;
  files.kind = model_io::SourceKind::kCheckpoint;
  files.path = directory;
  files.config = model_io::parse_hf_config(state.model, source + " (\"model\")");
  files.arrangement = model_io::arrange(files.config.model, model_io::Dialect::kHuggingFace);
  for (const model_io::FileTensor& tensor : files.arrangement.tensors) {
    const checkpoint::CheckpointReader::View view = reader.view(tensor.name);
    const checkpoint::StoredTensor& stored = reader.manifest().tensors.at(tensor.name);
    const auto type = quant::plain_type(stored.dtype);
    if (stored.shape != tensor.shape || !type) {
      throw FormatError(fmt::format("{}: \"{}\" is {} [{}], which is not what the model in it has ([{}] of floats)",
                                    source, tensor.name, to_string(stored.dtype), fmt::join(stored.shape, ", "),
                                    fmt::join(tensor.shape, ", ")));
    }
    const std::int64_t columns = model_io::columns_of(tensor.shape);
    files.tensors.push_back(
        {*type, model_io::rows_of(tensor.shape), columns, columns * size_of(stored.dtype), view.bytes, view.owner});
    files.tensor_files.push_back(directory.string());
  }
  return files;
}

bool is_checkpoint(const std::filesystem::path& directory) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(directory / "manifest.json", ignored);
}

}  // namespace caravan::train

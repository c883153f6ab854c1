#include "caravan/model_io/dump.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "caravan/base/error.h"
#include "caravan/base/file.h"
#include "caravan/base/json.h"
#include "caravan/model_io/rope_rows.h"
#include "caravan/tensor/copy.h"

namespace caravan::model_io {

namespace {

using checkpoint::SafetensorsWriter;
using checkpoint::TensorPlan;

constexpr std::int64_t kMaxIdFileBytes = std::int64_t{1} << 28;
// Ids go into the file's metadata up to this size; a header may have 100 MB.
constexpr std::int64_t kMaxMetadataBytes = std::int64_t{32} << 20;
// Tokens whose logits exist at a time.
constexpr std::int64_t kLogitTokens = 256;

DType dump_dtype(const LoadedModel& model) {
  return model.weights->dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
}

std::vector<TensorPlan> plan_dump(const LoadedModel& model, const IdLists& ids, const DumpRequest& request) {
  const model::LlamaConfig& config = model.config.model;
  const DType dtype = dump_dtype(model);
  std::vector<TensorPlan> plan;
  // Layer by layer over all sequences: the order in which one packed forward pass makes them.
  for (std::int64_t layer = 0; request.hidden && layer <= config.num_hidden_layers; ++layer) {
    for (std::size_t s = 0; s < ids.size(); ++s) {
      plan.push_back({fmt::format("hidden.{}.{}", s, layer),
                      dtype,
                      {static_cast<std::int64_t>(ids[s].size()), config.hidden_size}});
    }
  }
  for (std::size_t s = 0; request.logits && s < ids.size(); ++s) {
    plan.push_back({fmt::format("logits.{}", s), dtype, {static_cast<std::int64_t>(ids[s].size()), config.vocab_size}});
  }
  for (const autograd::Parameter& parameter : model.weights->parameters()) {
    for (const ParamPart& part : parameter.spec.parts) {
      if (request.gradients) {
        const auto extents = part.shape.extents();
        plan.push_back({"grad." + part.name, dtype, {extents.begin(), extents.end()}});
      }
    }
  }
  return plan;
}

// Where dumped tensors go; nowhere in a dry run.
class Output {
 public:
  Output(const std::filesystem::path& path, const std::vector<TensorPlan>& plan, DType dtype, const IdLists& ids)
      : dtype_(dtype) {
    if (path.empty()) {
      return;
    }
    std::map<std::string, std::string> metadata{{"producer", "caravan"}};
    std::string text = Json(ids).dump();
    if (static_cast<std::int64_t>(text.size()) <= kMaxMetadataBytes) {
      metadata[kIdsMetadata] = std::move(text);
    }
    writer_.emplace(path, plan, metadata);
  }

  void append(const Tensor& rows) {
    if (!writer_) {
      return;
    }
    std::vector<std::byte> stored(static_cast<std::size_t>(rows.bytes()));
    copy_to_host(stored, rows);
    std::vector<std::byte> converted(static_cast<std::size_t>(rows.elements() * size_of(dtype_)));
    convert_elements(dtype_, converted.data(), rows.dtype(), stored.data(), rows.elements());
    writer_->append(converted);
  }

  void finish() {
    if (writer_) {
      writer_->finish();
    }
  }

 private:
  std::optional<SafetensorsWriter> writer_;
  DType dtype_;
};

// Every row's successor in its sequence; the last row of a sequence has none.
std::vector<std::int32_t> next_tokens(const IdLists& ids) {
  std::vector<std::int32_t> targets;
  for (const std::vector<std::int32_t>& sequence : ids) {
    targets.insert(targets.end(), sequence.begin() + 1, sequence.end());
    targets.push_back(ops::kIgnoredTarget);
  }
  return targets;
}

// The rows of packed sequences stand one after the other, as the tensors in the file do: blocks need not end with
// sequences.
void append_logits(autograd::Context& ctx, const LoadedModel& model, const Tensor& hidden, Output& output) {
  for (std::int64_t row = 0; row < hidden.rows(); row += kLogitTokens) {
    output.append(model.llama->logits(ctx, hidden.row_range(row, std::min(hidden.rows(), row + kLogitTokens))));
  }
}

// The loss and, where gradients are asked for, the start of their way back.
void add_loss(autograd::Context& ctx, const LoadedModel& model, const autograd::Value& hidden, const IdLists& ids,
              DumpResult& result) {
  const std::vector<std::int32_t> targets = next_tokens(ids);
  result.targets = std::ranges::count_if(targets, [](std::int32_t t) { return t != ops::kIgnoredTarget; });
  const double scale = result.targets == 0 ? 0.0 : 1.0 / static_cast<double>(result.targets);
  const autograd::Value losses = model.llama->token_losses(ctx, hidden, to_device(*ctx.ops.allocator, targets), scale);
  if (ctx.ops.dry_run()) {
    return;
  }
  double sum = 0.0;
  for (const double one : to_doubles(losses.tensor)) {
    sum += one;
  }
  result.loss =
      result.targets == 0 ? std::numeric_limits<double>::quiet_NaN() : sum / static_cast<double>(result.targets);
}

void append_gradients(const LoadedModel& model, Output& output) {
  const model::LlamaConfig& config = model.config.model;
  for (const autograd::Parameter& parameter : model.weights->parameters()) {
    for (const ParamPart& part : parameter.spec.parts) {
      const Tensor rows = autograd::part_rows(parameter.gradient, part);
      if (config.rope_pairing == ops::RopePairing::kInterleaved && has_rotary_rows(part.name)) {
        for (const std::int64_t row : half_from_interleaved(rows.rows(), config.head_dim)) {
          output.append(rows.row_range(row, row + 1));
        }
      } else {
        output.append(rows);
      }
    }
  }
}

}  // namespace

IdLists read_id_lists(const std::filesystem::path& path) {
  return parse_id_lists(read_text_file(path, kMaxIdFileBytes), path.string());
}

IdLists parse_id_lists(std::string_view text, const std::string& source) {
  JsonLimits limits;
  limits.max_bytes = kMaxIdFileBytes;
  limits.max_values = std::numeric_limits<std::int64_t>::max();
  const Json document = parse_json(text, source, limits);
  if (!document.is_array()) {
    throw FormatError(fmt::format("{}: expected a list of lists of token ids, as in [[1, 2, 3], [4, 5]], found {}",
                                  source, document.type_name()));
  }
  if (document.empty()) {
    throw InputError(fmt::format("{}: the list holds no sequence; give at least one list of token ids", source));
  }
  IdLists ids;
  for (const Json& list : document) {
    const std::size_t number = ids.size();
    if (!list.is_array()) {
      throw FormatError(
          fmt::format("{}: element {} must be a list of token ids, found {}", source, number, list.type_name()));
    }
    if (list.empty()) {
      throw InputError(fmt::format("{}: sequence {} is empty; every sequence needs at least one id", source, number));
    }
    std::vector<std::int32_t>& sequence = ids.emplace_back();
    sequence.reserve(list.size());
    for (const Json& id : list) {
      const bool fits = id.is_number_integer() && !(id.is_number_unsigned() && id.get<std::uint64_t>() > INT32_MAX) &&
                        id.get<std::int64_t>() <= INT32_MAX && id.get<std::int64_t>() >= INT32_MIN;
      if (!fits) {
        throw FormatError(fmt::format("{}: sequence {}, place {}: a token id is an integer below 2^31, found {}",
                                      source, number, sequence.size(), id.dump().substr(0, 40)));
      }
      sequence.push_back(id.get<std::int32_t>());
    }
  }
  return ids;
}

void check_ids(const IdLists& ids, const model::LlamaConfig& config) {
  const std::int64_t longest_allowed = nn::max_sequence_length(config.rope);
  std::int64_t total = 0;
  for (std::size_t s = 0; s < ids.size(); ++s) {
    const auto length = static_cast<std::int64_t>(ids[s].size());
    total += length;
    if (length > longest_allowed) {
      throw InputError(fmt::format("sequence {} has {} tokens, the model takes at most {}; shorten it by {}", s, length,
                                   longest_allowed, length - longest_allowed));
    }
    for (std::size_t i = 0; i < ids[s].size(); ++i) {
      if (ids[s][i] < 0 || ids[s][i] >= config.vocab_size) {
        throw InputError(fmt::format("sequence {}, place {}: token id {} is outside the vocabulary of {} (0 to {})", s,
                                     i, ids[s][i], config.vocab_size, config.vocab_size - 1));
      }
    }
  }
  if (total > INT32_MAX) {
    throw InputError(fmt::format("{} tokens in one batch are more than 2^31 - 1; give fewer sequences", total));
  }
}

DumpResult dump(ops::Context& ctx, const LoadedModel& model, const IdLists& ids, const DumpRequest& request,
                const std::filesystem::path& output_path) {
  check_ids(ids, model.config.model);
  std::vector<std::int64_t> lengths;
  std::vector<std::int32_t> tokens;
  for (const std::vector<std::int32_t>& sequence : ids) {
    lengths.push_back(static_cast<std::int64_t>(sequence.size()));
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  }
  const SequenceLayout layout = pack(lengths);
  const std::vector<TensorPlan> plan = plan_dump(model, ids, request);
  Output output(ctx.dry_run() || plan.empty() ? std::filesystem::path() : output_path, plan, dump_dtype(model), ids);

  DumpResult result;
  autograd::Context pass(ctx, layout);
  autograd::Tape tape(ctx);
  if (request.gradients) {
    pass.tape = &tape;
    pass.checkpointing = request.checkpointing;
  }
  const model::Llama& llama = *model.llama;
  autograd::Value x{to_device(*ctx.allocator, tokens)};
  for (int unit = 0; unit < llama.units(); ++unit) {
    x = llama.forward_unit(pass, unit, x);
    // The last block's own output is not among transformers' hidden states: the final norm's stands in its place.
    if (request.hidden && unit != llama.units() - 2) {
      output.append(x.tensor);
    }
  }
  if (request.logits) {
    append_logits(pass, model, x.tensor, output);
  }
  if (request.loss || request.gradients) {
    add_loss(pass, model, x, ids, result);
  }
  if (request.gradients) {
    x = {};
    if (request.on_tape) {
      request.on_tape(tape);
    }
    tape.backward(pass, {0, llama.units()});
    append_gradients(model, output);
  }
  output.finish();
  result.memory = ctx.allocator->use();
  return result;
}

}  // namespace caravan::model_io

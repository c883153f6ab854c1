#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <ostream>

#include "caravan/base/error.h"
#include "caravan/cli/commands.h"
#include "caravan/cli/shared_options.h"

namespace caravan::cli {

namespace {

model_io::DumpRequest request_of(const ParsedOptions& options) {
  const std::vector<std::string> what = options.list("--what");
  const auto asked = [&](const char* name) { return std::ranges::find(what, name) != what.end(); };
  return {.logits = asked("logits"), .hidden = asked("hidden"), .loss = asked("loss"), .gradients = asked("gradients")};
}

// A dump may not land on what it is made from.
void refuse_overwriting_inputs(const ParsedOptions& options) {
  const std::filesystem::path output = options.path("--output");
  std::error_code ignored;
  const auto is_output = [&](const std::filesystem::path& input) {
    return std::filesystem::equivalent(output, input, ignored);
  };
  bool hit = is_output(options.path("--ids")) || is_output(options.path("--model"));
  for (std::filesystem::directory_iterator entry(options.path("--model"), ignored), end; entry != end;
       entry.increment(ignored)) {
    hit = hit || is_output(entry->path());
  }
  if (hit) {
    throw InputError(
        fmt::format("--output {} is one of the files that the dump is made from; give another name", output.string()));
  }
}

autograd::SavePolicy policy_of(const ParsedOptions& options) {
  const std::string name = options.text("--checkpointing");
  autograd::SavePolicy policy;
  if (name == "full") {
    policy.mode = autograd::CheckpointMode::kFull;
  } else if (name == "selective") {
    policy.mode = autograd::CheckpointMode::kSelective;
  } else if (name == "every-second") {
    policy.mode = autograd::CheckpointMode::kEveryNth;
  }
  return policy;
}

int run_dump(const ParsedOptions& options, Streams streams) {
  model_io::DumpRequest request = request_of(options);
  request.checkpointing = policy_of(options);
  if (options.has("--print-tape")) {
    if (!request.gradients) {
      throw InputError("dump: there is a tape only for gradients; add gradients to --what");
    }
    request.on_tape = [&](const autograd::Tape& tape) { streams.err << autograd::print_tape(tape); };
  }
  const bool dry_run = options.has("--dry-run");
  if ((request.logits || request.hidden || request.gradients) && !dry_run && !options.has("--output")) {
    throw InputError("dump: logits, hidden states and gradients need a file to go to; give --output OUT.safetensors");
  }
  if (options.has("--output")) {
    refuse_overwriting_inputs(options);
  }
  ops::Context ctx = context_for(options, dry_run);
  const model_io::IdLists ids = model_io::read_id_lists(options.path("--ids"));
  model_io::LoadOptions loading = load_options(options);
  loading.training = request.gradients;
  const model_io::LoadedModel model =
      model_io::load_model(ctx, options.path("--model"), compute_dtype_of(options), loading);
  print_warnings(streams, model.warnings);
  start_trace(options, ctx);
  const model_io::DumpResult result = model_io::dump(ctx, model, ids, request, options.path("--output"));
  finish_trace(ctx);

  Json json = Json::object();
  if (request.loss && !dry_run) {
    json["loss"] = std::isfinite(result.loss) ? Json(result.loss) : Json(nullptr);
    json["targets"] = result.targets;
  }
  std::size_t tokens = 0;
  for (const auto& sequence : ids) {
    tokens += sequence.size();
  }
  json["sequences"] = ids.size();
  json["tokens"] = tokens;
  json["dtype"] = options.text("--dtype");
  json["backend"] = ops::to_string(ctx.backend);
  json["isa"] = to_string(ctx.isa);
  json["threads"] = ctx.threads;
  json["dry_run"] = dry_run;
  json["memory"] = memory_json(result.memory);
  streams.out << json.dump() << "\n";
  if (request.loss && !dry_run && !std::isfinite(result.loss)) {
    streams.err << (result.targets == 0 ? "caravan: warning: no sequence has a second token, so there is no loss\n"
                                        : "caravan: warning: the loss is not a finite number\n");
  }
  return 0;
}

}  // namespace

Command dump_command() {
  CommandSpec spec;
  spec.name = "dump";
  spec.summary = "compute a model's logits, hidden states and loss";
  spec.description =
      "Runs the id lists of a JSON file as one packed batch. Writes logits.<sequence> [tokens, vocab] and "
      "hidden.<sequence>.<layer> [tokens, hidden] (layer 0 the embedding, the last after the final norm) and "
      "grad.<parameter> (of the mean loss, a tied weight once, under the embedding's name) as "
      "safetensors, "
      "f32 unless the model computes in f64, and prints one JSON object with the mean next-token cross entropy and the "
      "memory used. With --dry-run nothing is computed: the memory printed is what the run will use.";
  spec.options = {
      model_option(),
      {.name = "--ids",
       .value_name = "FILE.json",
       .kind = OptionKind::kFile,
       .help = "a list of lists of token ids, as in [[1, 2, 3], [4, 5]]",
       .required = true},
      {.name = "--what",
       .value_name = "LIST",
       .kind = OptionKind::kChoiceList,
       .help = "what to compute",
       .default_value = "loss",
       .choices = {"logits", "hidden", "loss", "gradients"}},
      compute_dtype_option(),
      {.name = "--output",
       .value_name = "OUT.safetensors",
       .kind = OptionKind::kFile,
       .help = "where logits, hidden states and gradients go"},
      {.name = "--checkpointing",
       .value_name = "POLICY",
       .kind = OptionKind::kChoice,
       .help =
           "what gradients keep of the forward pass: full keeps a block's input alone, selective attention and every "
           "second product",
       .default_value = "none",
       .choices = {"none", "full", "every-second", "selective"}},
      {.name = "--print-tape",
       .value_name = "",
       .kind = OptionKind::kFlag,
       .help = "print what the gradients' forward pass kept, node by node, on standard error"},
      {.name = "--dry-run",
       .value_name = "",
       .kind = OptionKind::kFlag,
       .help = "compute nothing, print the memory that the run will use"},
  };
  spec.options.push_back(trace_option());
  for (OptionSpec& option : numerics_options()) {
    spec.options.push_back(std::move(option));
  }
  spec.examples = {
      "caravan dump --model DIR --ids ids.json --what logits,hidden,loss --dtype f32 --output out.safetensors"};
  return {spec, run_dump};
}

}  // namespace caravan::cli

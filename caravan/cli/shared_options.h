// Options and small steps that several commands share.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "caravan/base/json.h"
#include "caravan/cli/commands.h"
#include "caravan/model_io/dump.h"
#include "caravan/model_io/load.h"

namespace caravan::cli {

// --model, required.
OptionSpec model_option();
// --dtype: what activations and matrices are (see load_options), and what it means for the backend: on the processor
// f64 runs on the reference.
OptionSpec compute_dtype_option(const std::string& default_value = "f32");
// --device, --backend, --norm-rounding, --rope-rounding, --rope-pairing.
std::vector<OptionSpec> numerics_options();
OptionSpec json_option();
// --trace
OptionSpec trace_option();
// A trace of all that ctx does from here on, where --trace asks for one.
void start_trace(const ParsedOptions& options, ops::Context& ctx);
// Writes it to its end.  Throws FileError.
void finish_trace(ops::Context& ctx);
// --max-shard-bytes, --config-dialect, --replace: of commands that write a model.
std::vector<OptionSpec> writing_options();

// The type that the words of --dtype compute in: f32 for native and auto.
DType dtype_of(const ParsedOptions& options, const std::string& name);

// Whether --device names a GPU.
bool on_gpu(const ParsedOptions& options);
// What --dtype and --device compute in.  Throws InputError for native on a GPU.
DType compute_dtype_of(const ParsedOptions& options);

// A context as --device, --threads, --backend and --dtype ask.
ops::Context context_for(const ParsedOptions& options, bool dry_run);

// What the numerics options change in a config, and what --dtype says of matrices.
model_io::LoadOptions load_options(const ParsedOptions& options);

// The text of a file, or all of standard input where the name is "-".  Throws FileError, also for a file beyond
// `max_bytes`.
std::string text_of_input(const std::string& file, Streams streams, std::int64_t max_bytes);

// Prints every warning as a line of its own.
void print_warnings(Streams streams, const std::vector<std::string>& warnings);

// {"weights": ..., "activations": ..., "workspace": ..., "peak": ..., "high_water": ...} in bytes.
Json memory_json(const MemoryUse& use);

// "134.5 M", "269 MB"-like figures for people.
std::string human_count(std::int64_t count);
std::string human_bytes(std::int64_t bytes);

}  // namespace caravan::cli

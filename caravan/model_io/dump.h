// The numbers of a model, for comparison with another implementation's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/model_io/load.h"
#include "caravan/tensor/allocator.h"

namespace caravan::model_io {

using IdLists = std::vector<std::vector<std::int32_t>>;

// A JSON file that is a list of lists of token ids.  Throws FileError when it cannot be read; FormatError when it is
// anything else, naming list and element; InputError when it holds no list or an empty one.
IdLists read_id_lists(const std::filesystem::path& path);

// The same from text; `source` opens every message.
IdLists parse_id_lists(std::string_view text, const std::string& source);

// A dump's metadata under this key is the JSON text of its ids, so that `caravan compare --model` can make its like.
inline constexpr const char* kIdsMetadata = "ids";

// Throws InputError naming sequence, place and bound when an id is outside the vocabulary or a sequence is longer than
// the model's length.
void check_ids(const IdLists& ids, const model::LlamaConfig& config);

struct DumpRequest {
  bool logits = false;
  bool hidden = false;
  bool loss = false;
  bool gradients = false;                                   // needs a model loaded with LoadOptions::training
  autograd::SavePolicy checkpointing = {};                  // of the gradients' forward pass
  std::function<void(const autograd::Tape&)> on_tape = {};  // sees the tape between the two passes
};

struct DumpResult {
  double loss = 0.0;  // mean next-token cross entropy over all targets of all sequences; NaN without targets
  std::int64_t targets = 0;
  MemoryUse memory;  // of the context's allocator over load and forward
};

// Runs all sequences as one packed batch and writes, as DumpRequest asks,
//   logits.<sequence>           [tokens, vocab]
//   hidden.<sequence>.<layer>   [tokens, hidden]
//   grad.<parameter>            the parameter's shape; of the mean loss; a tied weight once, under the embedding's name
// in f32 (f64 when the model computes in f64) to `output`, which appears whole or not at all; an empty path writes
// nothing.  Layer 0 is the embedding, the last one stands after the final norm, and there are layers + 1 of them, as
// transformers' output_hidden_states gives them.
// On the meta device it computes nothing, writes nothing, and the result's memory is what the real run will use.
// Throws what check_ids throws, and FileError.
DumpResult dump(ops::Context& ctx, const LoadedModel& model, const IdLists& ids, const DumpRequest& request,
                const std::filesystem::path& output);

}  // namespace caravan::model_io

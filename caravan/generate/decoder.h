// Sequences that grow: ids in, the logits of what comes next out.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/generate/cache.h"
#include "caravan/model/llama.h"
#include "caravan/ops/context.h"

namespace caravan::generate {

// Several sequences over one cache.  Each pass brings any number of new ids of each, and the logits equal those of a
// pass over the whole sequences within rounding.
//
// Dynamic and longrope scaling give a sequence other rotary frequencies as it grows: longrope once, where it passes the
// trained length, dynamic at every token beyond it.  New frequencies change what every block is given at every earlier
// position, so that the whole sequence is run again: a step then costs as much as the prompt did.
class Decoder {
 public:
  // Room for capacities[i] ids of sequence i.  The model must outlive it.  Throws OutOfMemoryError.
  Decoder(ops::Context& ctx, const model::Llama& model, std::vector<std::int64_t> capacities);

  static CacheShape cache_shape(const model::Llama& model);

  // Appends ids[i], which may be empty, to sequence i in one pass.  Result: the logits after the last id of each
  // sequence that got any, [1, vocab] f32 (f64 for f64 models), in order; for others undefined tensors.
  // Throws ShapeError when there are more ids than room, OutOfMemoryError; the decoder is of no use afterwards.
  std::vector<Tensor> extend(const std::vector<std::vector<std::int32_t>>& ids);

 private:
  ops::Context* ctx_;
  const model::Llama* model_;
  DenseCache cache_;
  std::vector<std::vector<std::int32_t>> sequences_;  // all ids so far
};

}  // namespace caravan::generate

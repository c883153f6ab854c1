// Sequences that grow: ids in, the logits of what comes next out.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "caravan/generate/cache.h"
#include "caravan/generate/step_graph.h"
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
  // Which passes of one id a sequence are recorded as a graph (step_graph.h).
  enum class Recording { kOnGpu, kAlways };

  // Room for capacities[i] ids of sequence i.  The model must outlive it.  Throws OutOfMemoryError.
  Decoder(ops::Context& ctx, const model::Llama& model, std::vector<std::int64_t> capacities,
          Recording recording = Recording::kOnGpu);

  static CacheShape cache_shape(const model::Llama& model);

  // Cuts sequence i back to its first `length` ids; what is appended next goes on from there, and only that is run.
  // Throws ShapeError when it is shorter.
  void keep(std::size_t i, std::int64_t length);

  // Room for capacities[i] ids of sequence i from now on.  Throws as DenseCache::reserve.
  void reserve(const std::vector<std::int64_t>& capacities);

  // The ids of sequence i so far, and how many ids of all sequences went through the model.
  const std::vector<std::int32_t>& sequence(std::size_t i) const { return sequences_.at(i); }
  std::int64_t ids_run() const { return ids_run_; }

  // Appends ids[i], which may be empty, to sequence i in one pass.  Result: the logits after the last id of each
  // sequence that got any, [1, vocab] f32 (f64 for f64 models), in order; for others undefined tensors.
  // Throws ShapeError when there are more ids than room, OutOfMemoryError; the decoder is of no use afterwards.  The
  // tensors hold until the next call.
  std::vector<Tensor> extend(const std::vector<std::vector<std::int32_t>>& ids);

  // The cache, for steps of the caller's own; what they append the decoder does not know of.
  DenseCache& cache() { return cache_; }

 private:
  bool recorded_step(const std::vector<std::vector<std::int32_t>>& ids, std::vector<Tensor>& logits);

  ops::Context* ctx_;
  const model::Llama* model_;
  DenseCache cache_;
  std::vector<std::vector<std::int32_t>> sequences_;  // all ids so far
  std::vector<std::int64_t> lengths_;                 // of each sequence when its last rows were computed
  std::int64_t ids_run_ = 0;
  bool records_ = false;
  std::unique_ptr<StepGraph> steps_;  // null until the first recorded step, and when the cache has moved
  bool steps_go_on_ = false;          // the last pass was a recorded step, after which the next one follows
};

}  // namespace caravan::generate

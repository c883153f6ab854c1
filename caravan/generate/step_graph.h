// Steps of decoding in which the host takes no part but to start them.
//
// A step embeds an id, runs the model over a cache, and gives logits.  Everything that changes from step to step (ids,
// positions, how many rows the cache holds) stands on the device and is counted up there, so that one recorded graph
// (ops/graph.h) is every step.  Chosen greedily, the next id too is found on the device, and steps can be started before
// the host has seen the ids of those before.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "caravan/generate/cache.h"
#include "caravan/generate/device_sampling.h"
#include "caravan/model/llama.h"
#include "caravan/ops/context.h"
#include "caravan/ops/graph.h"
#include "caravan/tensor/copy.h"

namespace caravan::generate {

// Whether steps from length `from` to `to` can be such: rotary frequencies that change with the length forbid it.
bool steps_can_be_recorded(const model::LlamaConfig& config, std::int64_t from, std::int64_t to);

// One step of every sequence of a cache at a time.
class StepGraph {
 public:
  enum class Choice {
    kGreedy,   // the largest logit's id, on the device
    kSampled,  // an id drawn there, as draw_by() says
    kByHost,   // the host reads logits() and gives the ids of the next step
  };

  // The cache must hold the same number of rows that the sequences have ids but for the last one; model, cache and ctx
  // must outlive it, and the cache may not be reserved anew.  Throws OutOfMemoryError.
  StepGraph(ops::Context& ctx, const model::Llama& model, DenseCache& cache, Choice choice);

  // Begins, or begins again: held[i] rows of sequence i are in the cache, next[i] is the id that the next step runs.
  void begin(const std::vector<std::int64_t>& held, const std::vector<std::int32_t>& next);

  // Of kSampled, before begin(): how sequence i is drawn, in which stream and at which place of it the next step's id
  // (sampler.h); places count up with the steps.
  void draw_by(const std::vector<SamplingOptions>& options, const std::vector<std::uint64_t>& streams,
               const std::vector<std::int64_t>& positions);

  // Starts the next step.  kByHost: with these ids, [sequences].  Throws ShapeError when the cache is full.
  void step();
  void step(const std::vector<std::int32_t>& ids);

  // Of kGreedy and kSampled: the ids that the oldest step not asked about has chosen, -1 for logits that are no numbers; waits for it.
  std::vector<std::int32_t> take();
  // take(), the device kept busy: starts the step after the one that is waited for, as long as no more than `wanted` steps,
  // this one counted, are under way.
  std::vector<std::int32_t> take_ahead(std::int64_t wanted);
  // Of kByHost: what the last step gave, [sequences, vocab] f32 (f64 for f64 models).
  const Tensor& logits() const { return logits_; }

 private:
  void run(ops::Context& ctx);
  void start();

  ops::Context* ctx_;
  const model::Llama* model_;
  DenseCache* cache_;
  Choice choice_;
  std::int64_t sequences_;
  std::int64_t max_length_;
  Tensor ids_;        // [sequences] i32: of the next step
  Tensor counters_;   // [3, sequences] i32: positions, the cache's rows to write, lengths with the new row
  Tensor begins_;     // [sequences] i32
  Tensor cos_, sin_;  // [max_length, head_dim / 2], of every position
  Tensor logits_;
  std::optional<DeviceSampling> drawing_;
  std::vector<std::int64_t> held_;
  std::int64_t under_way_ = 0;  // started by step() and not taken
  Mailbox<std::int32_t> chosen_;
  std::unique_ptr<ops::Graph> graph_;
};

}  // namespace caravan::generate

// The ops of a training step at a model's shapes: the one table that `caravan bench` times and that tests hold against
// what a step really calls.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "caravan/model/llama.h"
#include "caravan/ops/context.h"

namespace caravan::bench {

// What the shapes of a step follow from.
struct StepShape {
  model::LlamaConfig model;
  std::int64_t rows = 1;  // of a micro-batch, one sequence each
  std::int64_t seq_len = 1;
  std::int64_t micro_batches = 1;
  DType dtype = DType::kF32;  // that the model computes in

  std::int64_t tokens() const { return rows * seq_len; }  // of a micro-batch
};

// A case that is ready: its operands stand in memory as long as it lives.
struct Work {
  std::function<void()> call;
  // Floating-point operations of one call: those of products, and of attention over the pairs that the causal mask lets
  // through, each once; what a backward computes again is not counted.  0: no products.
  double flops = 0.0;
  // That one call reads and writes at least: every operand once, one that is added to twice.
  double bytes = 0.0;
};

struct Case {
  std::string name;                             // the op as ops::Choice names it, and which one it is: "linear qkv"
  std::int64_t calls = 0;                       // in one step without recomputation; 0: no part of a training step
  std::function<Work(ops::Context& ctx)> make;  // allocates from the context; throws what ops and allocators throw
};

// Every op of a step, in its order; loss_head without gradients, which evaluations call, has no calls.  Sums of flops times calls equal train::flops_per_token times tokens, but
// that a row of a sequence sees itself too: (seq_len + 1) / 2 keys on average, not seq_len / 2.
std::vector<Case> step_cases(const StepShape& shape);

// The model's own products alone (forward, input gradient and weight gradient of the four of a block and of the loss
// head), without bias, residual or anything else that a step folds into them: what the machine can do at best.  The
// head's are cut into pieces of at most 4096 tokens.
std::vector<Case> product_cases(const StepShape& shape);

}  // namespace caravan::bench

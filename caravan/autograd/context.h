// What travels with a forward pass besides values.  Layers receive it and nothing else.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "caravan/layout/attention_range.h"
#include "caravan/layout/sequence_layout.h"
#include "caravan/ops/context.h"

namespace caravan::autograd {

// The cos and sin of one rotary embedding for the rows of one batch.  [tokens, head_dim / 2]
struct RotaryTables {
  Tensor cos;
  Tensor sin;
};

// One forward pass over one packed batch.  Without a tape it is inference.  The tape, the KV cache and the random state
// stand here too when their parts of the house do.
struct Context {
  ops::Context& ops;
  const SequenceLayout& layout;

  // Made by layers on first use and kept for the rest of the pass, keyed by the layer that asked and the
  // activations' dtype.
  std::map<std::pair<const void*, DType>, RotaryTables> rotary;

  // The layout is not copied: a temporary one would be gone.
  Context(ops::Context& ops_context, SequenceLayout&& sequence_layout) = delete;
  Context(ops::Context& ops_context, const SequenceLayout& sequence_layout)
      : ops(ops_context), layout(sequence_layout) {}
};

}  // namespace caravan::autograd

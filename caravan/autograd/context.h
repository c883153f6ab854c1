// What travels with a forward pass besides values.  Layers receive it and nothing else.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "caravan/autograd/kv_cache.h"
#include "caravan/autograd/save_policy.h"
#include "caravan/autograd/tape.h"
#include "caravan/layout/attention_range.h"
#include "caravan/layout/sequence_layout.h"
#include "caravan/ops/context.h"

namespace caravan::autograd {

// The cos and sin of one rotary embedding for the rows of one batch.  [tokens, head_dim / 2]
struct RotaryTables {
  Tensor cos;
  Tensor sin;
};

// The results of a checkpointed segment's ops that its policy keeps: filled by the forward pass, read by the
// recomputation.
struct SegmentRecord {
  const SavePolicy* policy = nullptr;
  bool replaying = false;
  std::int64_t products = 0;              // linear ops met so far
  std::vector<std::vector<Tensor>> kept;  // results of one op each, in order
  std::size_t next = 0;                   // of kept, while replaying

  // Whether a tensor's memory is among the kept results: it may not be changed in place.
  bool keeps_memory_of(const Tensor& tensor) const;
};

// One forward pass over one packed batch.  Without a tape it is inference.  A context outlives its tape's backward:
// segments run again in it.
struct Context {
  ops::Context& ops;
  const SequenceLayout& layout;

  Tape* tape = nullptr;              // nullptr: nothing is recorded
  KvCache* cache = nullptr;          // nullptr: sequences are whole; never together with a tape
  SavePolicy checkpointing;          // of the segments that are recorded
  SegmentRecord* segment = nullptr;  // the segment that runs now
  double flops = 0.0;                // floating-point operations of the ops run so far, recomputation included

  // Made by layers on first use and kept for the rest of the pass, keyed by the layer that asked and the
  // activations' dtype.
  std::map<std::pair<const void*, DType>, RotaryTables> rotary;

  // The layout is not copied: a temporary one would be gone.
  Context(ops::Context& ops_context, SequenceLayout&& sequence_layout) = delete;
  Context(ops::Context& ops_context, const SequenceLayout& sequence_layout)
      : ops(ops_context), layout(sequence_layout) {}
};

}  // namespace caravan::autograd

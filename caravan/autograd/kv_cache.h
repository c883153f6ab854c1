// What attention sees of a cache: rows in, rows and ranges out.
//
// The layer does not know how keys and values are kept: one stretch a sequence, pages, or shared prefixes.  A cache
// answers with whole tensors and the ranges of their rows that belong to each query, so paging is a matter of ranges.
//
// Where the rotary frequencies depend on the sequence's length (dynamic, longrope), a change of them changes what every
// block but the first is given, so no row survives it, rotated or not: whoever drives the passes then begins the
// sequence anew (nn::same_frequencies, generate::Decoder).
#pragma once

#include <vector>

#include "caravan/layout/attention_range.h"
#include "caravan/layout/sequence_layout.h"
#include "caravan/ops/context.h"

namespace caravan::autograd {

class KvCache {
 public:
  // What the queries of a pass look at in one layer.
  struct View {
    Tensor key;                          // [cache rows, kv_heads * head_dim]
    Tensor value;                        // the same shape
    std::vector<AttentionRange> ranges;  // queries are rows of the pass, keys rows of these tensors
    // Or, where the pass is one row a sequence and the host does not know how long they are: row i sees lengths[i] keys
    // from begins[i] on, at most max_length (ops::cached_attention).  [sequences] i32
    Tensor begins, lengths;
    std::int64_t max_length = 0;
  };

  virtual ~KvCache() = default;

  // Keeps the new rows of `layer` and returns what its queries see, the new rows included.  key, value: [tokens,
  // kv_heads * head_dim], rows as the pass's layout has them, keys after the rotary embedding; sequence i of the layout
  // is sequence i of the cache (of length 0 when it rests), and its first_position says how many rows of it stay: what
  // the cache held beyond them is forgotten.
  virtual View extend(ops::Context& ctx, int layer, const SequenceLayout& layout, const Tensor& key,
                      const Tensor& value) = 0;
};

}  // namespace caravan::autograd

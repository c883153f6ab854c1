// Whether a converted model is what it was made from.
#pragma once

#include <cstdint>
#include <string>

#include "caravan/model_io/load.h"

namespace caravan::model_io {

struct Verification {
  bool exact = true;          // every weight has the value it had
  std::int64_t weights = 0;   // compared
  double weight_error = 0.0;  // of the worst part: distance of the two over the length of the first
  std::string worst_part;
  double hidden_error = 0.0;   // of the worst hidden state, likewise
  double logit_error = 0.0;    // of the logits
  std::int64_t positions = 0;  // of the input that both were run on
};

// Compares two models that are open.
//
// First every weight: rows stored in the same type must be the same bytes, plain types that narrow must hold the rounded
// value, blocks must lie within quant::worst_distance() of what they were made from, so a row in the wrong place, a scale
// that is lost or a tensor under another's name is found.  Then both run on a short input, unit by unit, each with its
// own configuration as read back, with one unit of weights in memory at a time (in bf16 where that is large, the head in
// pieces): hidden states and logits are equal where all weights are, and else their distance is reported; it is refused
// when it is not a number or as large as the hidden state itself.
//
// `progress` counts bytes of both files.  Throws FormatError naming part, row and what was expected; what the context
// throws when memory is short.
Verification verify_conversion(ops::Context& ctx, const ModelFiles& source, const ModelFiles& result,
                               const Progress& progress = {});

}  // namespace caravan::model_io

// Checks of index tensors that have to read them, and a step's record.  For the implementations of host backends only: the
// front ends serve the meta device too, where there is nothing to read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "caravan/base/error.h"
#include "caravan/ops/args.h"
#include "caravan/ops/loss_head.h"
#include "caravan/tensor/tensor.h"

namespace caravan::ops {

// ids: [tokens] i32, contiguous; negative ids are padding.  Throws InputError naming row and id when one is not below
// `vocab`.
inline void check_ids(const Tensor& ids, std::int64_t vocab) {
  const auto* id = reinterpret_cast<const std::int32_t*>(ids.address());
  for (std::int64_t row = 0; row < ids.rows(); ++row) {
    if (id[row] >= vocab) {
      throw InputError("embedding: row " + std::to_string(row) + ": token id " + std::to_string(id[row]) +
                       " is not below the vocabulary's " + std::to_string(vocab) +
                       "; tokenize with the model's own tokenizer");
    }
  }
}

// targets: [tokens] i32, contiguous.  Throws InputError naming row and target when one is neither kIgnoredTarget nor in
// [0, vocab).
inline void check_targets(const Tensor& targets, std::int64_t vocab) {
  const auto* target = reinterpret_cast<const std::int32_t*>(targets.address());
  for (std::int64_t row = 0; row < targets.rows(); ++row) {
    if (target[row] != kIgnoredTarget && (target[row] < 0 || target[row] >= vocab)) {
      throw InputError("loss head: row " + std::to_string(row) + ": target " + std::to_string(target[row]) +
                       " is neither in [0, " + std::to_string(vocab) + ") nor " + std::to_string(kIgnoredTarget) +
                       ", which marks a target to ignore");
    }
  }
}

// kind, positions: [tokens] i32, contiguous; rows with a negative position are padding.  Throws ShapeError when another
// row's kind is not in [0, kinds).
inline void check_kinds(const Tensor& kind, const Tensor& positions, std::int64_t kinds) {
  const auto* value = reinterpret_cast<const std::int32_t*>(kind.address());
  const auto* position = reinterpret_cast<const std::int32_t*>(positions.address());
  for (std::int64_t row = 0; row < kind.rows(); ++row) {
    if (position[row] >= 0 && (value[row] < 0 || value[row] >= kinds)) {
      throw ShapeError("rope_tables: row " + std::to_string(row) + ": kind " + std::to_string(value[row]) +
                       " is not a row of the " + std::to_string(kinds) + " rows of frequencies");
    }
  }
}

// Nothing where the record says that the step is not applied.
inline std::optional<AdamWFactors> host_factors(const AdamWArgs& args) {
  if (!args.record.defined()) {
    return factors_of(args.settings);
  }
  const auto* record = reinterpret_cast<const double*>(args.record.address());
  if (record[kApplied] == 0) {
    return std::nullopt;
  }
  return AdamWFactors{record[kLr], record[kGradientScale], record[kCorrection1], record[kRootCorrection]};
}

}  // namespace caravan::ops

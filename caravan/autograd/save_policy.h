// Which results of a checkpointed segment are kept and which are computed again: a plain value.
//
// Kinds and counting follow torchtitan's activation_checkpoint (mode none, full, selective with "op" or a number).  Its
// per-op rule keeps every second product; ours counts the fused products qkv and gate|up once each.
#pragma once

#include <cstdint>
#include <set>
#include <string>

namespace caravan::autograd {

enum class CheckpointMode {
  kNone,       // everything is kept
  kFull,       // a block's input alone
  kEveryNth,   // as kFull, for layers n - 1, 2 n - 1, ... alone
  kSelective,  // per op: `save` names what is kept, of products every second one
};

struct SavePolicy {
  CheckpointMode mode = CheckpointMode::kNone;
  int every = 2;                                         // of kEveryNth
  std::set<std::string> save = {"linear", "attention"};  // of kSelective

  bool operator==(const SavePolicy&) const = default;
};

// Whether block `layer` (from 0) is a checkpointed segment at all.  Throws ConfigError when `every` is below 1.
bool checkpointed(const SavePolicy& policy, std::int64_t layer);

// Whether the result of an op inside a checkpointed segment is kept; `product` counts the linear ops of the segment
// from 1 (0 for other ops).
bool keeps(const SavePolicy& policy, const std::string& op, std::int64_t product);

// "none", "full", "every 2", "selective: attention, linear (every second one)"
std::string to_string(const SavePolicy& policy);

}  // namespace caravan::autograd

// The one table that knows a weight.
//
// Everything about a parameter derives from its ParamSpec: initial values, storage, checkpoints, conversion, counts.
// Later rooms add what they shard by; no other table of parameters exists.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/tensor/dtype.h"
#include "caravan/tensor/shape.h"

namespace caravan {

enum class InitKind { kNormal, kOnes, kZeros };

// How element i of a part gets its first value: N(0, deviation^2) from the stream (seed, part name), or a constant.
struct Init {
  InitKind kind = InitKind::kNormal;
  double deviation = 0.02;
};

// Which weight decay applies to a parameter.
enum class DecayGroup { kMatrix, kNorm, kBias, kEmbedding };

// A named piece of a stored parameter: rows [row_begin, row_begin + shape[0]) of it.  Names and shapes are Hugging
// Face's.
struct ParamPart {
  std::string name;
  Shape shape;
  std::int64_t row_begin = 0;
};

// A stored parameter.  q|k|v and gate|up are stored as one matrix of several parts; every other parameter has one part.
struct ParamSpec {
  std::string name;  // of the one part; of a fusion: the parts' prefix with "qkv_proj" or "gate_up_proj"
  Shape shape;       // the whole: parts stacked along axis 0
  std::vector<ParamPart> parts;
  Init init;
  DecayGroup decay = DecayGroup::kMatrix;
  int unit = 0;  // the model unit that owns it: 0 embedding, 1..layers the blocks, layers + 1 norm and head
  bool trainable = true;
  bool replica = false;  // a copy of a parameter that another pipeline stage holds and counts: not part of norms
  std::string alias_of;  // not stored: the parameter of that name serves (a tied head)
};

// Elements over all stored specs (aliases not counted twice).
std::int64_t parameter_count(const std::vector<ParamSpec>& specs);

}  // namespace caravan

// What a training checkpoint holds, independent of how many ranks wrote it: manifest v1.
//
// manifest.json:
//   {"caravan_checkpoint": 1,
//    "state": {...},                                     the trainer's own, kept as it is
//    "tensors": {"model.norm.weight": {"shape": [64], "dtype": "F32", "pieces": [
//        {"file": "rank-0.safetensors", "tensor": "model.norm.weight", "begin": [0], "end": [64],
//         "xxh3": "32 hex digits"}]}}}
// A piece is a box [begin, end) of the parameter; in its file it is a tensor of the box's shape and the parameter's
// dtype.  Boxes of a parameter do not overlap and cover it.  The hash is XXH3-128 over the piece's bytes in row-major
// order.  Parameters have at most four axes and 65,536 pieces; the document has at most 64 MB.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "caravan/base/json.h"
#include "caravan/tensor/dtype.h"

namespace caravan::checkpoint {

struct Piece {
  std::string file;    // a plain file name in the checkpoint's directory
  std::string tensor;  // in that file
  std::vector<std::int64_t> begin;
  std::vector<std::int64_t> end;
  std::string hash;
};

struct StoredTensor {
  std::vector<std::int64_t> shape;
  DType dtype = DType::kF32;
  std::vector<Piece> pieces;
};

struct Manifest {
  std::map<std::string, StoredTensor> tensors;
};

// The text of a manifest.json.  `state` is an object, or null for an empty one.  Throws FormatError for what is no
// UTF-8.
std::string format_manifest(const Manifest& manifest, const Json& state);

// `state` may be null.  Throws FormatError (source, tensor, what is wrong) for another version, a damaged document,
// fields that version 1 does not know, boxes that overlap, leave the tensor or do not cover it, and file names that are
// no plain names.
Manifest parse_manifest(std::string_view text, const std::string& source, Json* state);

}  // namespace caravan::checkpoint

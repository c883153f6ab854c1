// How each format arranges the weights of a Llama: which tensor of a file holds which rows of which parameter.
//
// One table serves both directions, so that reading and writing cannot disagree: a file's tensor is a list of runs of
// rows of parts (the table of parameters, Hugging Face's names and order).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/layout/param_spec.h"
#include "caravan/model/llama.h"

namespace caravan::model_io {

enum class Dialect {
  kHuggingFace,  // a tensor a part
  // A tensor a part under llama.cpp's names; the rows of q and k in interleaved pairing (2 i, 2 i + 1), as llama.cpp's
  // rotary embedding wants them: row 2 i + h of a head is Hugging Face's row h * head_dim / 2 + i.
  kGguf,
  // TransformerEngine's TransformerLayer as BioNeMo names it: q, k and v in one tensor, group by group (the query heads
  // of a key/value head, its key head, its value head), gate above up in another.
  kTransformerEngine,
};

// Rows [begin, begin + count) of part number `part`.
struct RowRun {
  std::int32_t part = 0;
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

// A tensor in a file.  Of a vector each element is a row.
struct FileTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<RowRun> rows;  // together all of its rows, in its order
};

// Where rows of a part lie: rows [begin, begin + count) of tensor number `tensor`.
struct PlaceRun {
  std::int32_t tensor = 0;
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

struct Arrangement {
  std::vector<ParamPart> parts;               // of the model, in the order of the table; aliases have none
  std::vector<FileTensor> tensors;            // in the order in which files are written
  std::vector<std::vector<PlaceRun>> places;  // of each part: where its rows are, in its order
};

// The rows of a part's or tensor's shape, and the elements of one: a vector's rows have one element.
std::int64_t rows_of(const std::vector<std::int64_t>& shape);
std::int64_t columns_of(const std::vector<std::int64_t>& shape);

// Throws ConfigError as model::validate does, and UnsupportedError for a model that the dialect cannot hold: of
// TransformerEngine's, one with biases or a head_dim that is not hidden_size / num_attention_heads.
Arrangement arrange(const model::LlamaConfig& config, Dialect dialect);

}  // namespace caravan::model_io

// The tables of SIMD kernels, one a level of instructions.
//
// Each table is made in a translation unit of its own that is compiled for its level.  Nothing of such an object may be
// merged by the linker with code of another: an inline function or a template kept from it would run on processors
// below its level.  So those units include nothing of the library but this header, which holds plain data only, and
// everything in them but the table's function has internal linkage (tests/ops/cpu checks their symbols).
//
// A kernel does its rows on the calling thread and allocates nothing.  Strides are in elements.
#pragma once

#include <cstdint>

namespace caravan::ops::cpu {

enum class Element { kF32, kBF16, kF16 };

// A matrix of some element type; rows `stride` elements apart.
struct Rows {
  void* data;
  std::int64_t stride;
};

struct RmsNormRows {
  Element element;
  Rows y, x;
  float* rstd;    // or null
  const void* w;  // [features]
  std::int64_t features;
  float eps;
  bool round_before_weight;  // NormRounding::kHuggingFace
};

struct SwigluRows {
  Element element;
  Rows y, gate_up;
  std::int64_t features;
};

struct RopeRows {
  Element element;
  Rows y, x;
  const float* cos;  // [rows, half]
  const float* sin;
  std::int64_t heads;
  std::int64_t half;  // head_dim / 2
  bool interleaved;
  bool inverse;
};

struct RopeTableRows {
  float* cos;  // [rows, half]
  float* sin;
  const std::int32_t* positions;
  const std::int32_t* kind;
  const float* frequencies;  // [kinds, half]
  std::int64_t half;
  float attention_scaling;
  Element rounded_to;
};

// y = round(product + bias + residual), the end of a product that the library left in f32.
struct EpilogueRows {
  Element element;       // of y and residual
  Element bias_element;  // of bias
  Rows y;
  Rows product;      // f32
  const void* bias;  // [columns] or null
  Rows residual;     // data null: none
  std::int64_t columns;
};

struct WidenRows {
  Element element;  // of x
  Rows y;           // f32
  Rows x;
  std::int64_t columns;
};

// Running maximum and sum of exponentials of a row whose logits arrive in blocks of the vocabulary.
struct LossRowState {
  float maximum;  // -infinity before the first block
  float sum;      // of exp(logit - maximum)
  float target;   // the target's logit, once its block came
};

struct LossBlock {
  const float* logits;  // [rows, stride]
  std::int64_t stride;
  std::int64_t columns;
  std::int64_t first;           // vocabulary index of column 0
  const std::int32_t* targets;  // [rows]
  LossRowState* states;         // [rows]
};

// layout's AttentionRange, without the library around it.
struct KeyRange {
  std::int64_t query_begin, query_end, key_begin, key_end, diagonal;
};

struct AttentionShape {
  Element element;
  Rows out, query, key, value;
  float* lse;  // [queries, heads] or null
  std::int64_t heads, kv_heads, head_dim;
  float scale;
};

// A piece of attention: query rows [query_begin, query_begin + queries) of all heads of one key head, over `count`
// ranges of those queries.  Keys are limited to [key_limit_begin, key_limit_end) counted from each range's key_begin,
// so that one long row of keys can be cut into pieces.
struct AttentionTask {
  const KeyRange* ranges;
  std::int64_t count;
  std::int64_t query_begin, queries;
  std::int64_t kv_head;
  std::int64_t key_limit_begin, key_limit_end;
  // Null: out and lse are written.  Otherwise the piece is left here, unnormalised, for attention_merge:
  // [rows][head_dim + 2] with the row's sum of p v, then its maximum (in base 2), then its sum of p;
  // row = query * group + head in group.
  float* partial;
};

// Merges `pieces` partials of a task's rows, which stand one after the other, in that order.
struct AttentionMerge {
  float* partials;  // overwritten
  std::int64_t pieces;
  std::int64_t query_begin, queries;
  std::int64_t kv_head;
};

struct Kernels {
  const char* name;
  void (*rms_norm)(const RmsNormRows&, std::int64_t begin, std::int64_t end);
  void (*swiglu)(const SwigluRows&, std::int64_t begin, std::int64_t end);
  void (*rope)(const RopeRows&, std::int64_t begin, std::int64_t end);
  void (*rope_tables)(const RopeTableRows&, std::int64_t begin, std::int64_t end);
  void (*epilogue)(const EpilogueRows&, std::int64_t begin, std::int64_t end);
  void (*widen)(const WidenRows&, std::int64_t begin, std::int64_t end);
  void (*loss_block)(const LossBlock&, std::int64_t begin, std::int64_t end);
  // Floats of scratch that one attention task of `queries` query rows needs.
  std::int64_t (*attention_scratch)(const AttentionShape&, std::int64_t queries);
  void (*attention)(const AttentionShape&, const AttentionTask&, float* scratch);
  void (*attention_merge)(const AttentionShape&, const AttentionMerge&);
};

const Kernels& kernels_avx2();
const Kernels& kernels_avx512();

}  // namespace caravan::ops::cpu

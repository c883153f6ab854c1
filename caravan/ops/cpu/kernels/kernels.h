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

// The gradient of x.  rstd as rms_norm left it.
struct RmsNormGradRows {
  Element element;
  Rows dx, dy, x;
  const float* rstd;
  const void* w;  // [features]
  std::int64_t features;
  bool add;  // to dx
};

// Sums over the rows of a matrix, of all columns that a call is given.
struct ColumnSums {
  Element element;
  Rows dy;
  std::int64_t rows;
  float* sums;
  bool add;  // to sums
};

// Sums over the rows of dy * x * rstd.
struct RmsNormColumnSums {
  ColumnSums sums;
  Rows x;
  const float* rstd;
  bool round_before_weight;  // x * rstd, as the forward did
};

struct SwigluRows {
  Element element;
  Rows y, gate_up;
  std::int64_t features;
};

struct SwigluGradRows {
  Element element;
  Rows d_gate_up, dy, gate_up;
  std::int64_t features;
};

struct AddRows {
  Element element;
  Rows y, a, b;
  std::int64_t columns;
};

struct ConvertRows {
  Element to, from;
  Rows y, x;
  std::int64_t columns;
};

// table[ids[row]] += dy[row] for all rows in order, of the columns that a call is given.
struct EmbeddingGradColumns {
  Element element;  // of dy
  Rows table;       // f32
  Rows dy;
  const std::int32_t* ids;  // negative: skipped
  std::int64_t rows;
  std::int64_t skipped_id;
};

// Rows of dw that stand together in a panel: where a range of rows may begin.
inline constexpr std::int64_t kNarrowPanel = 6;

// dw (+)= dy^T x in f32.  dy: [tokens, out], x: [tokens, in], dw: [out, in].
struct NarrowWeightGrad {
  const float* dy;
  std::int64_t dy_stride;
  const float* x;
  std::int64_t x_stride;
  float* dw;
  std::int64_t dw_stride;
  std::int64_t tokens, out, in;
  bool add;
};

struct AdamWElements {
  float* master;
  float* m;
  float* v;
  const float* gradient;
  float gradient_scale;
  float kept;            // 1 - lr decay
  float one_less_beta1;  // 1 - beta1
  float beta2;
  float one_less_beta2;   // 1 - beta2
  float root_correction;  // sqrt(1 - beta2^step)
  float eps;
  float step_size;  // lr / (1 - beta1^step)
};

// sums[b] = sum of x^2 over the elements [b * block, (b + 1) * block), in f64.
struct SquareBlocks {
  Element element;
  const void* x;
  std::int64_t count;
  std::int64_t block;
  double* sums;
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

// gradient = round(scale (softmax - onehot)) of the same block, once the states are those of whole rows.
struct LossGradBlock {
  LossBlock block;
  Element element;  // of gradient
  Rows gradient;
  float scale;
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

struct AttentionGradShape {
  Element element;
  Rows d_query, d_key, d_value, d_out, query, key, value, out;
  const float* lse;  // [queries, heads]
  std::int64_t heads, kv_heads, head_dim;
  float scale;
};

struct AttentionGradRange {
  KeyRange range;
  std::int64_t row;  // of the task's sums, where range.query_begin stands
  bool repeated;     // an earlier range has the same queries
};

// Keys [begin, end), at most kAttentionGradKeys.
struct KeyBlock {
  std::int64_t begin, end;
};
inline constexpr std::int64_t kAttentionGradKeys = 64;

// A piece of attention's backward: one key head and the blocks [first_block, blocks) in steps of `step`, which together
// meet all of `count` ranges.  d_key and d_value of those blocks are written; what they add to d_query is left in
// `sums`: [rows][group][head_dim rounded up to 16], f32, without the scale.
struct AttentionGradTask {
  const AttentionGradRange* ranges;
  std::int64_t count;
  std::int64_t rows;  // of all ranges that are not repeated
  std::int64_t kv_head;
  const KeyBlock* blocks;
  std::int64_t first_block, block_count, step;
  float* sums;
};

// Adds up the sums of a key head's `pieces` tasks, which stand one after the other, in that order, and writes d_query.
struct AttentionGradMerge {
  const AttentionGradRange* ranges;
  std::int64_t count;
  std::int64_t rows;
  std::int64_t kv_head;
  const float* sums;
  std::int64_t pieces;
};

// Types of blocks that have kernels, as quant::BlockType names them.
enum class BlockCodes { kQ40, kQ41, kQ80, kQ4K, kQ6K };

// Rows of activations as whole numbers: 32 at a time codes in [-127, 127] under one scale.
struct CodedRows {
  std::int8_t* codes;  // [rows, columns]
  float* scales;       // [rows, columns / 32]
  float* sums;         // [rows, columns / 32]: scale * sum of the codes
  std::int64_t columns;
};

struct CodeRows {
  Element element;
  Rows x;
  CodedRows coded;
};

// y[t][r] = x[t] . w[r].  begin and end of the kernel are rows of w.
struct BlockProduct {
  BlockCodes type;
  const void* blocks;
  std::int64_t row_bytes;
  CodedRows x;
  std::int64_t tokens;
  float* y;  // [tokens, y_stride]
  std::int64_t y_stride;
};

struct UnpackBlocks {
  BlockCodes type;
  const void* blocks;
  std::int64_t row_bytes;
  std::int64_t columns;
  Element element;  // of y
  Rows y;
};

// The same product of rows of numbers with activations in f32; added to y where `add` says so.
struct NumberProduct {
  Element element;  // of w
  Rows w;
  const float* x;
  std::int64_t x_stride;
  std::int64_t tokens;
  std::int64_t columns;
  float* y;
  std::int64_t y_stride;
  bool add;
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
  void (*rms_norm_grad)(const RmsNormGradRows&, std::int64_t begin, std::int64_t end);
  void (*swiglu_grad)(const SwigluGradRows&, std::int64_t begin, std::int64_t end);
  void (*add)(const AddRows&, std::int64_t begin, std::int64_t end);
  void (*convert)(const ConvertRows&, std::int64_t begin, std::int64_t end);
  void (*loss_grad_block)(const LossGradBlock&, std::int64_t begin, std::int64_t end);
  // begin and end are columns.
  void (*column_sums)(const ColumnSums&, std::int64_t begin, std::int64_t end);
  void (*rms_norm_column_sums)(const RmsNormColumnSums&, std::int64_t begin, std::int64_t end);
  void (*embedding_grad)(const EmbeddingGradColumns&, std::int64_t begin, std::int64_t end);
  // begin and end are elements.
  void (*adamw)(const AdamWElements&, std::int64_t begin, std::int64_t end);
  // begin and end are blocks.
  void (*squares)(const SquareBlocks&, std::int64_t begin, std::int64_t end);
  std::uint64_t (*sum_words)(const std::uint64_t* words, std::int64_t count);
  // Floats of scratch that one task of `rows` rows of sums needs.
  std::int64_t (*attention_grad_scratch)(const AttentionGradShape&, std::int64_t rows);
  void (*attention_grad)(const AttentionGradShape&, const AttentionGradTask&, float* scratch);
  void (*attention_grad_merge)(const AttentionGradShape&, const AttentionGradMerge&);
  // The same three for bf16 by products of pairs, of an even head_dim and even row strides; attention_merge and
  // attention_grad_merge serve both.  The scratch of attention_pairs is attention_scratch's.
  void (*attention_pairs)(const AttentionShape&, const AttentionTask&, float* scratch);
  std::int64_t (*attention_grad_pairs_scratch)(const AttentionGradShape&, std::int64_t rows);
  void (*attention_grad_pairs)(const AttentionGradShape&, const AttentionGradTask&, float* scratch);
  // Floats of scratch that a call for x of `in` columns needs; begin and end are rows of dw.
  std::int64_t (*narrow_scratch)(std::int64_t in);
  void (*narrow_weight_grad)(const NarrowWeightGrad&, std::int64_t begin, std::int64_t end, float* scratch);
  void (*code_rows)(const CodeRows&, std::int64_t begin, std::int64_t end);
  // begin and end are rows of the weight.
  void (*block_product)(const BlockProduct&, std::int64_t begin, std::int64_t end);
  void (*unpack_blocks)(const UnpackBlocks&, std::int64_t begin, std::int64_t end);
  void (*number_product)(const NumberProduct&, std::int64_t begin, std::int64_t end);
};

const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels_avx512_bf16();

}  // namespace caravan::ops::cpu

// The cases of every op: one line a case, every case in every dtype unless its member says otherwise.
//
// Parity with the reference walks these tables forwards and backwards, the f64 gradient check walks the small ones of
// them; benchmarks and the support matrix are made to.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "caravan/ops/attention.h"
#include "caravan/ops/rms_norm.h"
#include "caravan/ops/rope.h"

namespace caravan::ops::testing {

inline const std::vector<DType> kFloats = {DType::kF64, DType::kF32, DType::kBF16, DType::kF16};

enum class Residual { kNone, kSeparate, kAliasesY };

struct LinearCase {
  std::int64_t tokens, in, out;
  bool bias = false;
  Residual residual = Residual::kNone;
  bool strided = false;     // x, y and residual are column ranges
  bool f32_output = false;  // bf16 and f16 only
};

inline const std::vector<LinearCase> kLinearCases = {
    {.tokens = 0, .in = 64, .out = 32},
    {.tokens = 1, .in = 64, .out = 96},
    {.tokens = 1, .in = 2730, .out = 131, .bias = true},
    {.tokens = 3, .in = 1, .out = 1},
    {.tokens = 5, .in = 6, .out = 7, .strided = true},
    {.tokens = 7, .in = 16, .out = 499},
    {.tokens = 33, .in = 131, .out = 64, .bias = true, .residual = Residual::kSeparate},
    {.tokens = 19, .in = 2730, .out = 67, .residual = Residual::kAliasesY},
    {.tokens = 64, .in = 128, .out = 256, .residual = Residual::kSeparate, .strided = true},
    {.tokens = 40, .in = 96, .out = 80, .bias = true, .residual = Residual::kAliasesY, .strided = true},
    {.tokens = 131, .in = 64, .out = 2730, .strided = true},
    {.tokens = 257, .in = 80, .out = 24, .bias = true},
    {.tokens = 263, .in = 32, .out = 521},
    {.tokens = 66, .in = 131, .out = 515, .strided = true},
    {.tokens = 5, .in = 64, .out = 499, .f32_output = true},
    {.tokens = 9, .in = 131, .out = 48, .bias = true, .residual = Residual::kSeparate, .f32_output = true},
    {.tokens = 17, .in = 72, .out = 40, .residual = Residual::kAliasesY, .strided = true, .f32_output = true},
};

struct RmsNormCase {
  std::int64_t tokens, features;
  double eps = 1e-5;
  double scale = 1;       // of the inputs
  bool rstd = true;       // whether anybody wants it
  bool strided = false;   // x and y are column ranges
  bool in_place = false;  // y is x
};

// Every case in both roundings.
inline const std::vector<RmsNormCase> kRmsNormCases = {
    {.tokens = 0, .features = 64},
    {.tokens = 1, .features = 2730},
    {.tokens = 3, .features = 1},
    {.tokens = 5, .features = 7, .eps = 1e-6},
    {.tokens = 17, .features = 131, .rstd = false},
    {.tokens = 33, .features = 499, .strided = true},
    {.tokens = 9, .features = 64, .strided = true, .in_place = true},
    {.tokens = 131, .features = 256, .in_place = true},
    {.tokens = 4, .features = 4096, .scale = 100},
    {.tokens = 4, .features = 96, .scale = 1e-3},  // eps outweighs the mean square
};

struct RopeTablesCase {
  std::int64_t tokens, kinds, half;
  double scaling = 1;
  std::int32_t last_position = 100;
};

// Every case in f32 and f64 tables and in all four roundings.  Every third row is padding.
inline const std::vector<RopeTablesCase> kRopeTablesCases = {
    {.tokens = 0, .kinds = 1, .half = 8},
    {.tokens = 1, .kinds = 1, .half = 8},
    {.tokens = 29, .kinds = 1, .half = 12, .last_position = 4095},
    {.tokens = 64, .kinds = 3, .half = 64, .scaling = 1.1902380714238083, .last_position = 131071},
    {.tokens = 7, .kinds = 2, .half = 5, .scaling = 0.7, .last_position = 1000000},
};

struct RopeCase {
  std::int64_t tokens, heads, head_dim;
  bool strided = false;   // x and y are column ranges
  bool in_place = false;  // y is x
};

// Every case in both pairings, forward and inverse.
inline const std::vector<RopeCase> kRopeCases = {
    {.tokens = 0, .heads = 2, .head_dim = 16},
    {.tokens = 1, .heads = 1, .head_dim = 2},
    {.tokens = 5, .heads = 3, .head_dim = 24},
    {.tokens = 17, .heads = 4, .head_dim = 64, .strided = true, .in_place = true},
    {.tokens = 9, .heads = 2, .head_dim = 80, .strided = true},
    {.tokens = 131, .heads = 2, .head_dim = 128, .in_place = true},
    {.tokens = 3, .heads = 1, .head_dim = 256},
    {.tokens = 4, .heads = 2, .head_dim = 10},
};

struct AttentionCase {
  std::string name;
  std::int64_t queries, keys;
  HeadShape heads;
  std::vector<AttentionRange> ranges;
  double scale = 0;      // 0: 1 / sqrt(head_dim)
  double magnitude = 1;  // of queries and keys
  bool strided = false;  // column ranges everywhere
  bool lse = true;       // whether anybody wants it
};

// Rows that no range covers hold NaN in every case.
inline const std::vector<AttentionCase> kAttentionCases = {
    {.name = "nothing", .queries = 0, .keys = 0, .heads = {2, 1, 16}, .ranges = {}},
    {.name = "only_padding", .queries = 5, .keys = 5, .heads = {2, 1, 16}, .ranges = {}},
    {.name = "no_keys", .queries = 2, .keys = 0, .heads = {2, 2, 16}, .ranges = {{0, 2, 0, 0, 0}}},
    {.name = "one_token", .queries = 1, .keys = 1, .heads = {4, 2, 64}, .ranges = {{0, 1, 0, 1, 0}}},
    {.name = "causal_mha", .queries = 67, .keys = 67, .heads = {3, 3, 24}, .ranges = {{0, 67, 0, 67, 0}}},
    {.name = "causal_gqa",
     .queries = 131,
     .keys = 131,
     .heads = {8, 2, 64},
     .ranges = {{0, 131, 0, 131, 0}},
     .strided = true},
    {.name = "causal_mqa", .queries = 40, .keys = 40, .heads = {6, 1, 80}, .ranges = {{0, 40, 0, 40, 0}}},
    {.name = "head_dim_16",
     .queries = 33,
     .keys = 33,
     .heads = {2, 2, 16},
     .ranges = {{0, 33, 0, 33, 0}},
     .lse = false},
    {.name = "head_dim_128", .queries = 50, .keys = 50, .heads = {4, 2, 128}, .ranges = {{0, 50, 0, 50, 0}}},
    {.name = "head_dim_256",
     .queries = 21,
     .keys = 21,
     .heads = {2, 1, 256},
     .ranges = {{0, 21, 0, 21, 0}},
     .strided = true},
    {.name = "head_dim_258", .queries = 35, .keys = 35, .heads = {2, 1, 258}, .ranges = {{0, 35, 0, 35, 0}}},
    {.name = "head_dim_5", .queries = 9, .keys = 9, .heads = {2, 1, 5}, .ranges = {{0, 9, 0, 9, 0}}},
    {.name = "packed_documents_and_padding",
     .queries = 90,
     .keys = 90,
     .heads = {4, 2, 16},
     .ranges = {{0, 1, 0, 1, 0}, {1, 38, 1, 38, 0}, {38, 80, 38, 80, 0}}},
    {.name = "padding_between",
     .queries = 30,
     .keys = 30,
     .heads = {2, 1, 24},
     .ranges = {{2, 9, 2, 9, 0}, {13, 27, 13, 27, 0}},
     .strided = true},
    {.name = "chunks_of_16",
     .queries = 70,
     .keys = 70,
     .heads = {2, 2, 32},
     .ranges = {{0, 16, 0, 16, 0}, {16, 32, 16, 32, 0}, {32, 45, 32, 45, 0}, {45, 61, 45, 61, 0}, {61, 70, 61, 70, 0}}},
    {.name = "cached_prefix",
     .queries = 12,
     .keys = 85,
     .heads = {4, 1, 64},
     .ranges = {{0, 12, 4, 81, 65}},
     .strided = true},
    {.name = "aligned_cached_prefixes",
     .queries = 70,
     .keys = 300,
     .heads = {8, 2, 64},
     .ranges = {{0, 40, 0, 200, 160}, {40, 70, 210, 300, 60}},
     .lse = false},
    {.name = "a_beginning_and_a_cached_prefix",
     .queries = 50,
     .keys = 100,
     .heads = {4, 2, 128},
     .ranges = {{0, 20, 0, 20, 0}, {20, 50, 30, 100, 40}},
     .lse = false},
    {.name = "squares_of_the_same_keys",
     .queries = 64,
     .keys = 32,
     .heads = {4, 2, 64},
     .ranges = {{0, 32, 0, 32, 0}, {32, 64, 0, 32, 0}}},
    {.name = "decode_step",
     .queries = 3,
     .keys = 400,
     .heads = {8, 2, 64},
     .ranges = {{0, 1, 0, 131, 130}, {1, 2, 131, 132, 0}, {2, 3, 140, 397, 256}}},
    {.name = "long_decode", .queries = 1, .keys = 3000, .heads = {4, 1, 32}, .ranges = {{0, 1, 0, 3000, 2999}}},
    {.name = "not_causal", .queries = 23, .keys = 41, .heads = {2, 2, 64}, .ranges = {{0, 23, 0, 41, 41}}},
    {.name = "several_ranges_of_the_same_queries",
     .queries = 20,
     .keys = 64,
     .heads = {4, 2, 16},
     .ranges = {{0, 9, 30, 39, 0}, {0, 9, 0, 17, 17}, {0, 9, 40, 41, 1}, {11, 20, 50, 50, 0}, {11, 20, 50, 64, 3}}},
    {.name = "ranges_of_no_queries_or_no_keys",
     .queries = 14,
     .keys = 30,
     .heads = {2, 1, 16},
     .ranges = {{0, 0, 3, 9, 0},
                {0, 5, 0, 9, 4},
                {0, 0, 0, 2, 0},
                {0, 5, 12, 17, 0},
                {2, 2, 9, 9, 0},
                {6, 9, 4, 4, 0},
                {9, 12, 17, 30, 10},
                {12, 12, 0, 30, 0}}},
    {.name = "diagonal_beyond_keys", .queries = 30, .keys = 10, .heads = {2, 1, 16}, .ranges = {{0, 30, 0, 10, 0}}},
    {.name = "largest_diagonal",
     .queries = 5,
     .keys = 33,
     .heads = {2, 1, 16},
     .ranges = {{0, 5, 0, 33, std::numeric_limits<std::int64_t>::max()}}},
    {.name = "large_scores",
     .queries = 48,
     .keys = 48,
     .heads = {2, 1, 64},
     .ranges = {{0, 48, 0, 48, 0}},
     .magnitude = 12},
    {.name = "own_scale", .queries = 10, .keys = 10, .heads = {2, 1, 24}, .ranges = {{0, 10, 0, 10, 0}}, .scale = 0.3},
    {.name = "small_mha", .queries = 7, .keys = 7, .heads = {2, 2, 6}, .ranges = {{0, 7, 0, 7, 0}}, .strided = true},
    {.name = "small_mqa", .queries = 6, .keys = 6, .heads = {3, 1, 4}, .ranges = {{0, 6, 0, 6, 0}}, .magnitude = 3},
    {.name = "small_gqa_documents_and_padding",
     .queries = 13,
     .keys = 13,
     .heads = {4, 2, 4},
     .ranges = {{0, 1, 0, 1, 0}, {1, 6, 1, 6, 0}, {8, 12, 8, 12, 0}}},
    {.name = "small_chunks",
     .queries = 9,
     .keys = 9,
     .heads = {2, 1, 4},
     .ranges = {{0, 4, 0, 4, 0}, {4, 8, 4, 8, 0}, {8, 9, 8, 9, 0}}},
    {.name = "small_cached_prefix", .queries = 4, .keys = 11, .heads = {4, 2, 4}, .ranges = {{0, 4, 1, 10, 5}}},
    {.name = "small_ranges_of_the_same_queries",
     .queries = 6,
     .keys = 12,
     .heads = {2, 1, 4},
     .ranges = {{0, 3, 5, 8, 0}, {0, 3, 0, 4, 4}, {4, 6, 8, 8, 0}, {4, 6, 8, 11, 1}, {4, 6, 1, 5, 9}}},
    {.name = "keys_of_many_queries",
     .queries = 150,
     .keys = 20,
     .heads = {4, 2, 16},
     .ranges = {{0, 60, 0, 20, 20}, {60, 100, 5, 15, 9}, {100, 150, 0, 20, 0}}},
    {.name = "blocks_of_queries_and_keys",
     .queries = 300,
     .keys = 300,
     .heads = {2, 1, 16},
     .ranges = {{0, 300, 0, 300, 0}}},
};

// Steps of decoding: a query row sees all keys of one range or none.
inline const std::vector<AttentionCase> kCachedAttentionCases = {
    {.name = "mha_and_an_empty_sequence",
     .queries = 3,
     .keys = 400,
     .heads = {4, 4, 64},
     .ranges = {{0, 1, 0, 131, 131}, {2, 3, 140, 397, 257}}},
    {.name = "gqa_4", .queries = 2, .keys = 90, .heads = {8, 2, 64}, .ranges = {{0, 1, 3, 89, 86}, {1, 2, 0, 1, 1}}},
    {.name = "gqa_2_of_128", .queries = 1, .keys = 300, .heads = {4, 2, 128}, .ranges = {{0, 1, 0, 300, 300}}},
    {.name = "gqa_6", .queries = 1, .keys = 70, .heads = {12, 2, 64}, .ranges = {{0, 1, 0, 70, 70}}},
    {.name = "column_ranges",
     .queries = 2,
     .keys = 50,
     .heads = {4, 1, 80},
     .ranges = {{0, 1, 0, 20, 20}, {1, 2, 20, 50, 30}},
     .strided = true},
    {.name = "head_dim_40", .queries = 1, .keys = 90, .heads = {4, 1, 40}, .ranges = {{0, 1, 5, 90, 85}}},
    {.name = "head_dim_96",
     .queries = 2,
     .keys = 70,
     .heads = {6, 2, 96},
     .ranges = {{0, 1, 0, 30, 30}, {1, 2, 30, 70, 40}}},
    {.name = "head_dim_256", .queries = 1, .keys = 75, .heads = {2, 2, 256}, .ranges = {{0, 1, 0, 75, 75}}},
    {.name = "head_dim_264", .queries = 1, .keys = 9, .heads = {2, 1, 264}, .ranges = {{0, 1, 0, 9, 9}}},
    {.name = "head_dim_5", .queries = 1, .keys = 33, .heads = {2, 1, 5}, .ranges = {{0, 1, 0, 33, 33}}},
    {.name = "large_scores",
     .queries = 1,
     .keys = 64,
     .heads = {2, 1, 64},
     .ranges = {{0, 1, 0, 64, 64}},
     .magnitude = 12},
};

struct SwigluCase {
  std::int64_t tokens, features;
  double scale = 4;      // of gate and up
  bool strided = false;  // gate_up is a column range
};

inline const std::vector<SwigluCase> kSwigluCases = {
    {.tokens = 0, .features = 64},
    {.tokens = 1, .features = 2730},
    {.tokens = 3, .features = 1},
    {.tokens = 4, .features = 9, .strided = true},
    {.tokens = 131, .features = 96},
    {.tokens = 17, .features = 499, .strided = true},
    {.tokens = 5, .features = 256, .scale = 120},  // exp(-gate) leaves f32
};

struct EmbeddingCase {
  std::int64_t tokens, vocab, hidden;
};

// Every fifth id is padding.
inline const std::vector<EmbeddingCase> kEmbeddingCases = {
    {.tokens = 0, .vocab = 131, .hidden = 64},    {.tokens = 1, .vocab = 1, .hidden = 1},
    {.tokens = 40, .vocab = 499, .hidden = 33},   {.tokens = 60, .vocab = 7, .hidden = 5},
    {.tokens = 131, .vocab = 131, .hidden = 128}, {.tokens = 300, .vocab = 3, .hidden = 80},
    {.tokens = 1500, .vocab = 997, .hidden = 8},  // an id stands again farther than a round of a search goes
};

struct LossHeadCase {
  std::int64_t tokens, features, vocab;
  double scale = 0.5;     // of the weight
  int ignored_every = 3;  // every n-th target is ignored and its hidden row holds NaN; 0: none
  bool strided = false;   // hidden is a column range
};

inline const std::vector<LossHeadCase> kLossHeadCases = {
    {.tokens = 0, .features = 64, .vocab = 131},
    {.tokens = 1, .features = 64, .vocab = 131, .ignored_every = 0},
    {.tokens = 6, .features = 16, .vocab = 1},
    {.tokens = 7, .features = 5, .vocab = 11},
    {.tokens = 37, .features = 64, .vocab = 131, .strided = true},
    {.tokens = 300, .features = 32, .vocab = 499},
    {.tokens = 3, .features = 16, .vocab = 32000},
    {.tokens = 19, .features = 131, .vocab = 1003, .scale = 60},  // logits far beyond exp's range
    {.tokens = 8, .features = 24, .vocab = 67, .ignored_every = 1},
};

struct ElementwiseCase {
  std::int64_t rows, columns;
  bool strided = false;  // all are column ranges
};

inline const std::vector<ElementwiseCase> kElementwiseCases = {
    {.rows = 0, .columns = 64},    {.rows = 1, .columns = 1},
    {.rows = 1, .columns = 2730},  {.rows = 3, .columns = 17, .strided = true},
    {.rows = 131, .columns = 499}, {.rows = 33, .columns = 96, .strided = true},
};

struct OptimizerCase {
  std::int64_t count;
  std::int64_t step = 1;
  double weight_decay = 0.1;
  double gradient_scale = 1;
};

inline const std::vector<OptimizerCase> kOptimizerCases = {
    {.count = 0},
    {.count = 1},
    {.count = 31, .step = 2, .gradient_scale = 0.37},
    {.count = 4097, .step = 10, .weight_decay = 0},
    {.count = 70000, .step = 100000, .gradient_scale = 0.01},
};

}  // namespace caravan::ops::testing

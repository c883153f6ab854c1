// The layers of a Llama.  A layer holds pointers to its parameters and its constants; everything that changes from call
// to call is in the Context.  Layers are values: copying one shares the parameters.
#pragma once

#include <cstdint>

#include "caravan/autograd/functions.h"
#include "caravan/nn/rope_config.h"

namespace caravan::nn {

using autograd::Context;
using autograd::Parameter;
using autograd::Value;

struct Linear {
  const Parameter* weight = nullptr;  // [out, in]
  const Parameter* bias = nullptr;    // [out] or nullptr

  // x: [tokens, in].  Result: [tokens, out].
  Value forward(Context& ctx, const Value& x, const Value* plus = nullptr) const;
};

struct RmsNorm {
  const Parameter* weight = nullptr;  // [features]
  double eps = 1e-6;
  ops::NormRounding rounding = ops::NormRounding::kHuggingFace;

  // x: [tokens, features].  Result: the same shape.
  Value forward(Context& ctx, const Value& x) const;
};

// Which precision the rotary tables have when they meet the activations.
enum class RopeRounding {
  kActivation,  // rounded to the activations' dtype     transformers LlamaRotaryEmbedding
  kFloat32,     // kept in f32                           TransformerEngine
};

// The rotary embedding that all layers of a model share.
struct Rope {
  RopeConfig config;
  std::int64_t head_dim = 0;
  ops::RopePairing pairing = ops::RopePairing::kRotateHalf;
  RopeRounding rounding = RopeRounding::kActivation;

  // The tables for the rows of ctx.layout, made on the pass's first call and kept in ctx.  Every sequence gets the
  // frequencies of its own length.
  const autograd::RotaryTables& tables(Context& ctx, DType activations) const;
};

struct Attention {
  Linear qkv;                  // [(heads + 2 kv_heads) head_dim, hidden]
  Linear output;               // [hidden, heads head_dim]
  const Rope* rope = nullptr;  // nullptr: no position embedding
  ops::HeadShape heads;
  int layer = 0;  // whose keys and values these are in a cache

  // x: [tokens, hidden].  Result: x's shape, `plus` added.  With ctx.cache, queries see what it keeps.
  Value forward(Context& ctx, const Value& x, const Value& plus) const;
};

struct FeedForward {
  Linear gate_up;  // [2 intermediate, hidden]
  Linear down;     // [hidden, intermediate]

  // x: [tokens, hidden].  Result: x's shape, `plus` added.
  Value forward(Context& ctx, const Value& x, const Value& plus) const;
};

}  // namespace caravan::nn

// The nodes of the tape, one kind an op family.  For this room's .cc files and its tests.
//
// A node keeps what its two halves read and lets go of each tensor after its last use.  Formulas stand at the ops.
#pragma once

#include <memory>
#include <vector>

#include "caravan/autograd/context.h"
#include "caravan/autograd/parameter.h"
#include "caravan/autograd/tape.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/rms_norm.h"
#include "caravan/ops/rope.h"

namespace caravan::autograd {

// y = x W^T (+ bias) (+ plus).  The gradient of `plus` is y's, passed on without a copy.  Where x has a recipe, x is made
// again for the weight's gradient and not kept.
struct LinearNode final : Node {
  double bytes = 0.0;  // of Cost
  Tensor x, dy;
  std::shared_ptr<const Recipe> recipe;  // of x
  const Parameter* weight = nullptr;
  const Parameter* bias = nullptr;
  Slot x_slot = kNoSlot, plus_slot = kNoSlot, y_slot = kNoSlot;
  double tokens = 0.0;

  const char* name() const override { return "linear"; }
  void input_grad(Context& ctx, Tape& tape) override;
  void weight_grad(Context& ctx) override;
  bool has_weight_grad() const override { return dy.defined(); }
  std::vector<Saved> saved() const override { return {{"x", &x}, {"dy", &dy}}; }
  Cost cost() const override;
};

struct RmsNormNode final : Node {
  double bytes = 0.0;  // of Cost
  Tensor x, rstd, dy;
  const Parameter* weight = nullptr;
  ops::NormRounding rounding = ops::NormRounding::kHuggingFace;
  Slot x_slot = kNoSlot, y_slot = kNoSlot;

  const char* name() const override { return "rms_norm"; }
  void input_grad(Context& ctx, Tape& tape) override;
  void weight_grad(Context& ctx) override;
  bool has_weight_grad() const override { return dy.defined(); }
  std::vector<Saved> saved() const override { return {{"x", &x}, {"rstd", &rstd}, {"dy", &dy}}; }
  Cost cost() const override { return {.bytes = bytes}; }
};

// Turns the query and key columns of a fused product.  The gradient turns back.
struct RopeNode final : Node {
  double bytes = 0.0;  // of Cost
  RotaryTables tables;
  std::int64_t columns = 0;
  ops::RopePairing pairing = ops::RopePairing::kRotateHalf;
  Slot x_slot = kNoSlot, y_slot = kNoSlot;

  const char* name() const override { return "rope"; }
  void input_grad(Context& ctx, Tape& tape) override;
  std::vector<Saved> saved() const override { return {{"cos", &tables.cos}, {"sin", &tables.sin}}; }
  Cost cost() const override { return {.bytes = bytes}; }
};

struct AttentionNode final : Node {
  double bytes = 0.0;  // of Cost
  Tensor qkv, out, lse;
  ops::HeadShape heads;
  std::vector<AttentionRange> ranges;
  double scale = 1.0;
  Slot qkv_slot = kNoSlot, y_slot = kNoSlot;

  const char* name() const override { return "attention"; }
  void input_grad(Context& ctx, Tape& tape) override;
  std::vector<Saved> saved() const override { return {{"qkv", &qkv}, {"out", &out}, {"lse", &lse}}; }
  Cost cost() const override;
};

struct SwigluNode final : Node {
  double bytes = 0.0;  // of Cost
  Tensor gate_up;
  Slot gate_up_slot = kNoSlot, y_slot = kNoSlot;

  const char* name() const override { return "swiglu"; }
  void input_grad(Context& ctx, Tape& tape) override;
  std::vector<Saved> saved() const override { return {{"gate_up", &gate_up}}; }
  Cost cost() const override { return {.bytes = bytes}; }
};

struct EmbeddingNode final : Node {
  double bytes = 0.0;  // of Cost
  Tensor ids, dy;
  const Parameter* table = nullptr;
  std::int64_t padding_id = -1;
  Slot y_slot = kNoSlot;

  const char* name() const override { return "embedding"; }
  void input_grad(Context& ctx, Tape& tape) override;
  void weight_grad(Context& ctx) override;
  bool has_weight_grad() const override { return dy.defined(); }
  std::vector<Saved> saved() const override { return {{"ids", &ids}, {"dy", &dy}}; }
  Cost cost() const override { return {.bytes = bytes}; }
};

// The last product and the cross entropy.  Both gradients are made in the forward pass, so it cannot be split.
struct LossHeadNode final : Node {
  double bytes = 0.0;  // of Cost
  Tensor d_hidden;
  const Parameter* weight = nullptr;
  Slot hidden_slot = kNoSlot;
  double counted_tokens = 0.0;

  const char* name() const override { return "loss_head"; }
  void input_grad(Context& ctx, Tape& tape) override;
  bool splittable() const override { return false; }
  std::vector<Saved> saved() const override { return {{"d_hidden", &d_hidden}}; }
  Cost cost() const override;
};

// Forward costs, shared by nodes and by the context's count.
double linear_flops(double tokens, const Parameter& weight);
double attention_flops(const ops::HeadShape& heads, const std::vector<AttentionRange>& ranges);

}  // namespace caravan::autograd

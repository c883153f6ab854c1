// The tape: what a forward pass did, in order, so that it can be walked back.
//
// One tape serves one micro-batch of one pipeline stage; several are alive at once and share nothing but the
// parameters' gradient tensors.  It is a linear list of coarse nodes (a product, a norm, an attention), each with two
// halves:
//   input_grad   sends the gradient on to the node's inputs
//   weight_grad  adds to the gradients of the node's parameters
// The halves may run apart (zero-bubble pipelines), the second in any later order.  No graph, no hooks, no second
// order.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "caravan/autograd/value.h"
#include "caravan/ops/context.h"

namespace caravan::autograd {

struct Context;
class Tape;

// A tensor that a node keeps for its backward, by the name that --print-tape shows.
struct Saved {
  const char* name;
  const Tensor* tensor;  // undefined once released
};

// Floating-point operations of a node: multiplications and additions counted apart, as 2 m n k for a product.
struct Cost {
  double forward = 0.0;
  double input_grad = 0.0;
  double weight_grad = 0.0;
  double bytes = 0.0;  // that the forward reads and writes at least: each operand and result once
};

class Node {
 public:
  virtual ~Node() = default;

  // "linear", "rms_norm", ...: the word of save policies, tables and tests.
  virtual const char* name() const = 0;
  // Reads the gradient of its outputs, adds to those of its inputs, and lets go of what weight_grad does not need.
  virtual void input_grad(Context& ctx, Tape& tape) = 0;
  // Adds to parameter gradients and lets go of the rest.  Runs after input_grad.
  virtual void weight_grad(Context& /*ctx*/) {}
  // Whether anything is left for weight_grad to do.
  virtual bool has_weight_grad() const { return false; }
  // False for nodes whose parameter gradients are made before weight_grad (the loss head makes them in its forward).
  virtual bool splittable() const { return true; }
  // What is kept at this moment.
  virtual std::vector<Saved> saved() const = 0;
  virtual Cost cost() const = 0;
};

// Units [first, last) of the model, as numbered by Tape::begin_unit.
struct UnitRange {
  int first = 0;
  int last = 0;
};

// Where a node writes its contribution to a gradient: fresh memory for the first writer, what stands there for others.
struct GradientTarget {
  Tensor tensor;
  ops::Accumulate accumulate = ops::Accumulate::kStore;
};

class Tape {
 public:
  explicit Tape(ops::Context& ops) : ops_(&ops) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // -- Forward --------------------------------------------------------------------------------------------------------

  // A gradient slot for a value made under this tape, or for an input whose gradient is wanted (a stage's input).
  Slot new_slot();
  // Appends a node to the unit begun last.
  void record(std::unique_ptr<Node> node);
  // Nodes recorded from here on belong to `unit`; units ascend.  Throws ShapeError when they do not.
  void begin_unit(int unit);

  // -- Backward -------------------------------------------------------------------------------------------------------

  // Contributes a gradient from outside: the next stage's, or a test's.
  void seed(Slot slot, const Tensor& gradient) { pass_on(slot, gradient); }
  // Walks the nodes of the units from last to first: input_grad of each, and what is not splittable.  Units go
  // back from last to first: throws ShapeError when one above the range has not.
  void backward_inputs(Context& ctx, UnitRange units);
  // weight_grad of each node of the units that has one left, from last to first.  Throws ShapeError when input_grad has
  // not run.
  void backward_weights(Context& ctx, UnitRange units);
  // Both halves, node by node: a node's tensors are free before the next one runs.
  void backward(Context& ctx, UnitRange units);

  // -- For nodes ------------------------------------------------------------------------------------------------------

  // Whether anybody wants this gradient.
  static bool wanted(Slot slot) { return slot != kNoSlot; }
  // Takes the gradient out of a slot; undefined when nothing arrived.
  Tensor take(Slot slot);
  // Where to write a gradient of that dtype and shape.  A tensor that another node still reads is copied before it
  // is added to, so that a residual's gradient can be shared without a copy until somebody changes it.
  GradientTarget target(Slot slot, DType dtype, const Shape& shape);
  // Contributes a whole tensor: adopted when it is the first, added otherwise.
  void pass_on(Slot slot, const Tensor& gradient);

  // -- Looking at it --------------------------------------------------------------------------------------------------

  struct Entry {
    int unit = 0;
    std::unique_ptr<Node> node;
    bool inputs_done = false;
    bool weights_done = false;
  };
  const std::vector<Entry>& entries() const { return entries_; }
  // Bytes kept by all nodes at this moment; a tensor that two nodes keep counts once.
  std::int64_t saved_bytes() const;
  int last_unit() const { return unit_; }

 private:
  void run_inputs(Context& ctx, Entry& entry);
  void run_weights(Context& ctx, Entry& entry);
  void require_done_above(UnitRange units) const;

  ops::Context* ops_;
  std::vector<Entry> entries_;
  std::vector<Tensor> gradients_;  // by slot
  int unit_ = 0;
};

// A line a node: unit, name, kept tensors with shapes, bytes, flops; totals at the end.
std::string print_tape(const Tape& tape);

}  // namespace caravan::autograd

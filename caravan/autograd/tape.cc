#include "caravan/autograd/tape.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/ops/elementwise.h"

namespace caravan::autograd {

namespace {

// Whether somebody besides the slot holds the memory: a node that has yet to read it, or another slot.
bool shared(const Tensor& tensor) {
  return tensor.owner().use_count() > 1;
}

bool inside(int unit, UnitRange units) {
  return unit >= units.first && unit < units.last;
}

}  // namespace

Slot Tape::new_slot() {
  gradients_.emplace_back();
  return static_cast<Slot>(gradients_.size()) - 1;
}

void Tape::record(std::unique_ptr<Node> node) {
  entries_.push_back({unit_, std::move(node)});
}

void Tape::begin_unit(int unit) {
  if (!entries_.empty() && unit < unit_) {
    throw ShapeError(fmt::format("tape: unit {} begins after unit {}; units ascend", unit, unit_));
  }
  unit_ = unit;
}

void Tape::run_inputs(Context& ctx, Entry& entry) {
  if (!entry.inputs_done) {
    entry.node->input_grad(ctx, *this);
    entry.inputs_done = true;
  }
}

void Tape::run_weights(Context& ctx, Entry& entry) {
  if (!entry.weights_done) {
    entry.node->weight_grad(ctx);
    entry.weights_done = true;
  }
}

void Tape::require_done_above(UnitRange units) const {
  for (const Entry& entry : entries_) {
    if (entry.unit >= units.last && !entry.inputs_done) {
      throw ShapeError(fmt::format("tape: units [{}, {}) asked to go back before unit {}, which stands above them",
                                   units.first, units.last, entry.unit));
    }
  }
}

void Tape::backward_inputs(Context& ctx, UnitRange units) {
  require_done_above(units);
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    if (inside(entry->unit, units)) {
      run_inputs(ctx, *entry);
      if (!entry->node->splittable()) {
        run_weights(ctx, *entry);
      }
    }
  }
}

void Tape::backward_weights(Context& ctx, UnitRange units) {
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    if (!inside(entry->unit, units)) {
      continue;
    }
    if (!entry->inputs_done) {
      throw ShapeError(
          fmt::format("tape: weight gradients of unit {} asked for before its input gradients", entry->unit));
    }
    run_weights(ctx, *entry);
  }
}

void Tape::backward(Context& ctx, UnitRange units) {
  require_done_above(units);
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    if (inside(entry->unit, units)) {
      run_inputs(ctx, *entry);
      run_weights(ctx, *entry);
    }
  }
}

Tensor Tape::take(Slot slot) {
  if (slot == kNoSlot) {
    return {};
  }
  return std::exchange(gradients_.at(static_cast<std::size_t>(slot)), Tensor());
}

GradientTarget Tape::target(Slot slot, DType dtype, const Shape& shape) {
  Tensor& gradient = gradients_.at(static_cast<std::size_t>(slot));
  if (!gradient.defined()) {
    gradient = ops_->allocate(dtype, shape);
    return {gradient, ops::Accumulate::kStore};
  }
  if (shared(gradient)) {
    const Tensor own = ops_->allocate(gradient.dtype(), gradient.shape());
    ops::convert(*ops_, own, gradient);
    gradient = own;
  }
  return {gradient, ops::Accumulate::kAdd};
}

void Tape::pass_on(Slot slot, const Tensor& gradient) {
  if (slot == kNoSlot || !gradient.defined()) {
    return;
  }
  Tensor& here = gradients_.at(static_cast<std::size_t>(slot));
  if (!here.defined()) {
    here = gradient;
    return;
  }
  const Tensor sum = shared(here) ? ops_->allocate(here.dtype(), here.shape()) : here;
  ops::add(*ops_, sum, here, gradient);
  here = sum;
}

std::int64_t Tape::saved_bytes() const {
  std::set<const void*> seen;
  std::int64_t bytes = 0;
  for (const Entry& entry : entries_) {
    for (const Saved& saved : entry.node->saved()) {
      if (saved.tensor->defined() && seen.insert(saved.tensor->owner().get()).second) {
        bytes += saved.tensor->bytes();
      }
    }
  }
  return bytes;
}

std::string print_tape(const Tape& tape) {
  std::string text =
      fmt::format("{:>4}  {:<16} {:>12} {:>12} {:>12}  kept\n", "unit", "node", "bytes kept", "MFLOP", "bytes moved");
  Cost total;
  for (const Tape::Entry& entry : tape.entries()) {
    const Cost cost = entry.node->cost();
    total.forward += cost.forward;
    total.input_grad += cost.input_grad;
    total.weight_grad += cost.weight_grad;
    total.bytes += cost.bytes;
    std::int64_t bytes = 0;
    std::string kept;
    for (const Saved& saved : entry.node->saved()) {
      if (saved.tensor->defined()) {
        bytes += saved.tensor->bytes();
        kept += fmt::format("{}{} {} {}", kept.empty() ? "" : ", ", saved.name, to_string(saved.tensor->dtype()),
                            to_string(saved.tensor->shape()));
      }
    }
    text += fmt::format("{:>4}  {:<16} {:>12} {:>12.3f} {:>12.0f}  {}\n", entry.unit, entry.node->name(), bytes,
                        cost.forward * 1e-6, cost.bytes, kept);
  }
  text +=
      fmt::format("{} nodes, {} bytes kept, {:.3f} MFLOP forward, {:.3f} input gradients, {:.3f} weight gradients\n",
                  tape.entries().size(), tape.saved_bytes(), total.forward * 1e-6, total.input_grad * 1e-6,
                  total.weight_grad * 1e-6);
  return text;
}

}  // namespace caravan::autograd

// Checkpointed segments: run without a tape, run again with one when the backward comes (Chen et al. 2016).
#include <limits>
#include <memory>
#include <utility>

#include "caravan/autograd/functions.h"
#include "caravan/autograd/nodes.h"

namespace caravan::autograd {

namespace {

using Body = std::function<Value(Context&, const Value&)>;

// Lends the context another tape and segment for the time of one call.
class Lent {
 public:
  Lent(Context& ctx, Tape* tape, SegmentRecord* segment)
      : ctx_(ctx), tape_(std::exchange(ctx.tape, tape)), segment_(std::exchange(ctx.segment, segment)) {}
  ~Lent() {
    ctx_.tape = tape_;
    ctx_.segment = segment_;
  }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

 private:
  Context& ctx_;
  Tape* tape_;
  SegmentRecord* segment_;
};

struct SegmentNode final : Node {
  Tensor x;
  Body body;
  SavePolicy policy;
  SegmentRecord record;
  Slot x_slot = kNoSlot, y_slot = kNoSlot;

  const char* name() const override { return "segment"; }
  // Its parameters' gradients are made with the input's.
  bool splittable() const override { return false; }

  void input_grad(Context& ctx, Tape& tape) override {
    if (Tensor dy = tape.take(y_slot); dy.defined()) {
      Tape inner(ctx.ops);
      record.policy = &policy;
      record.replaying = true;
      record.products = 0;
      record.next = 0;
      Value input{x, inner.new_slot()};
      x = {};
      Slot output = kNoSlot;
      {
        const Lent lent(ctx, &inner, &record);
        output = body(ctx, input).slot;
      }
      input.tensor = {};
      record.kept.clear();
      inner.seed(output, dy);
      dy = {};  // the slot alone holds it now, so that it may be added to in place
      inner.backward(ctx, {0, std::numeric_limits<int>::max()});
      tape.pass_on(x_slot, inner.take(input.slot));
    }
    x = {};
    record.kept.clear();
  }

  std::vector<Saved> saved() const override {
    std::vector<Saved> result{{"x", &x}};
    for (const std::vector<Tensor>& results : record.kept) {
      for (const Tensor& one : results) {
        result.push_back({"kept", &one});
      }
    }
    return result;
  }

  Cost cost() const override { return {}; }
};

}  // namespace

Value segment(Context& ctx, std::int64_t layer, const Value& x, const Body& body) {
  if (ctx.tape == nullptr || ctx.segment != nullptr || !checkpointed(ctx.checkpointing, layer)) {
    return body(ctx, x);
  }
  auto node = std::make_unique<SegmentNode>();
  node->x = x.tensor;
  node->body = body;
  node->policy = ctx.checkpointing;
  node->record.policy = &node->policy;
  Value y;
  {
    const Lent lent(ctx, nullptr, &node->record);
    y = body(ctx, {x.tensor});
  }
  node->x_slot = x.slot;
  y.slot = ctx.tape->new_slot();
  node->y_slot = y.slot;
  ctx.tape->record(std::move(node));
  return y;
}

}  // namespace caravan::autograd

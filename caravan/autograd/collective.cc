#include "caravan/autograd/collective.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "caravan/autograd/tape.h"
#include "caravan/base/error.h"
#include "caravan/ops/elementwise.h"

namespace caravan::autograd {

namespace {

Collective adjoint(Collective kind) {
  switch (kind) {
    case Collective::kCopy:
      return Collective::kReduce;
    case Collective::kReduce:
      return Collective::kCopy;
    case Collective::kGatherRows:
      return Collective::kScatterRows;
    case Collective::kScatterRows:
      return Collective::kGatherRows;
  }
  return kind;
}

// The exchange itself.  The result is x where nothing is exchanged.
Tensor exchange(ops::Context& ctx, comm::Communicator& ranks, Collective kind, const Tensor& x) {
  const std::int64_t size = ranks.size();
  switch (kind) {
    case Collective::kCopy:
      return x;
    case Collective::kReduce: {
      const Tensor sum = ctx.allocate(x.dtype(), x.shape());
      ops::convert(ctx, sum, x);
      ranks.all_reduce_sum(sum);
      return sum;
    }
    case Collective::kGatherRows: {
      const Tensor all = ctx.allocate(x.dtype(), {x.rows() * size, x.columns()});
      ranks.all_gather(all, x);
      return all;
    }
    case Collective::kScatterRows: {
      if (x.rows() % size != 0) {
        throw ShapeError(fmt::format("collective: {} rows cannot be scattered over {} ranks", x.rows(), size));
      }
      const Tensor share = ctx.allocate(x.dtype(), {x.rows() / size, x.columns()});
      ranks.reduce_scatter_sum(share, x);
      return share;
    }
  }
  return x;
}

// Its gradient arrives exchanged by the end node.
struct CollectiveBeginNode final : Node {
  Slot x_slot = kNoSlot, y_slot = kNoSlot;

  const char* name() const override { return "collective_begin"; }
  void input_grad(Context& /*ctx*/, Tape& tape) override { tape.pass_on(x_slot, tape.take(y_slot)); }
  std::vector<Saved> saved() const override { return {}; }
  Cost cost() const override { return {}; }
};

struct CollectiveEndNode final : Node {
  Collective kind = Collective::kCopy;
  comm::Communicator* ranks = nullptr;
  Slot x_slot = kNoSlot, y_slot = kNoSlot;

  const char* name() const override { return "collective_end"; }
  void input_grad(Context& ctx, Tape& tape) override {
    if (const Tensor dy = tape.take(y_slot); dy.defined()) {
      tape.pass_on(x_slot, exchange(ctx.ops, *ranks, adjoint(kind), dy));
    }
  }
  std::vector<Saved> saved() const override { return {}; }
  Cost cost() const override { return {}; }
};

}  // namespace

Pending collective_begin(Context& ctx, comm::Communicator& ranks, Collective kind, const Value& x) {
  Pending pending{{exchange(ctx.ops, ranks, kind, x.tensor)}, kind, &ranks};
  if (ctx.tape != nullptr) {
    auto node = std::make_unique<CollectiveBeginNode>();
    node->x_slot = x.slot;
    node->y_slot = pending.value.slot = ctx.tape->new_slot();
    ctx.tape->record(std::move(node));
  }
  return pending;
}

Value collective_end(Context& ctx, const Pending& pending) {
  Value y = pending.value;
  if (ctx.tape != nullptr) {
    auto node = std::make_unique<CollectiveEndNode>();
    node->kind = pending.kind;
    node->ranks = pending.ranks;
    node->x_slot = pending.value.slot;
    node->y_slot = y.slot = ctx.tape->new_slot();
    ctx.tape->record(std::move(node));
  }
  return y;
}

}  // namespace caravan::autograd

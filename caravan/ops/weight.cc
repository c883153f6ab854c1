#include "caravan/ops/weight.h"

#include <fmt/format.h>

#include <utility>

#include "caravan/base/error.h"
#include "caravan/ops/context.h"
#include "caravan/ops/elementwise.h"
#include "caravan/quant/dequantize.h"

namespace caravan::ops {
Weight::Weight(Tensor plain)
    : source_(std::move(plain)),
      plain_(source_),
      shape_(source_.shape()),
      dtype_(source_.dtype()),
      packed_(std::make_shared<std::map<std::string, PackedWeight>>()) {}

Weight Weight::rounded(Tensor master, DType dtype) {
  Weight weight(std::move(master));
  weight.dtype_ = dtype;
  if (weight.is_rounded()) {
    weight.plain_ = {};
  }
  return weight;
}

Weight Weight::in_blocks(std::vector<quant::BlockMatrix> pieces, DType dtype) {
  if (pieces.empty()) {
    throw ShapeError("a weight in blocks needs at least one piece of rows");
  }
  std::int64_t rows = 0;
  for (const quant::BlockMatrix& piece : pieces) {
    if (piece.columns != pieces.front().columns) {
      throw ShapeError(fmt::format("a weight in blocks: a piece of {} columns below one of {}", piece.columns,
                                   pieces.front().columns));
    }
    rows += piece.rows;
  }
  Weight weight;
  weight.shape_ = {rows, pieces.front().columns};
  weight.packed_ = std::make_shared<std::map<std::string, PackedWeight>>();
  weight.blocks_ = std::make_shared<const std::vector<quant::BlockMatrix>>(std::move(pieces));
  weight.dtype_ = dtype;
  return weight;
}

Tensor Weight::materialize(Context& ctx) const {
  if (plain_.defined()) {
    return plain_;
  }
  const Tensor copy = ctx.allocate(dtype_, shape_, Segment::kWorkspace);
  if (!is_in_blocks()) {
    convert(ctx, copy, source_);
    return copy;
  }
  std::int64_t row = 0;
  for (const quant::BlockMatrix& piece : *blocks_) {
    if (!ctx.dry_run()) {
      quant::dequantize_into(copy.row_range(row, row + piece.rows), piece, ctx.threads);
    }
    row += piece.rows;
  }
  return copy;
}

Weight Weight::with_plain(Context& ctx) const {
  return is_rounded() || is_in_blocks() ? Weight(materialize(ctx)) : *this;
}

void Weight::changed() {
  if (packed_ != nullptr) {
    packed_->clear();
  }
}

void Weight::release(WeightUse use) const {
  if (packed_ != nullptr) {
    std::erase_if(*packed_, [&](const auto& form) { return (form.second.uses & ~static_cast<unsigned>(use)) == 0; });
  }
}

}  // namespace caravan::ops

#include "caravan/ops/weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "caravan/base/error.h"
#include "caravan/ops/context.h"
#include "caravan/ops/elementwise.h"
#include "caravan/quant/dequantize.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops {
namespace {

// Elements dequantised at a time: a staging buffer of a megabyte.
constexpr std::int64_t kStagedElements = std::int64_t{1} << 18;

void dequantize_piece(const Context& ctx, const quant::BlockMatrix& piece, const Tensor& rows) {
  const std::int64_t most = std::max<std::int64_t>(1, kStagedElements / std::max<std::int64_t>(1, piece.columns));
  std::vector<float> values;
  std::vector<std::byte> converted;
  for (std::int64_t begin = 0; begin < piece.rows; begin += most) {
    const std::int64_t end = std::min(piece.rows, begin + most);
    const Tensor target = rows.row_range(begin, end);
    values.resize(static_cast<std::size_t>(target.elements()));
    converted.resize(static_cast<std::size_t>(target.bytes()));
    quant::dequantize_rows(piece, begin, end, values.data(), ctx.threads);
    convert_elements(target.dtype(), converted.data(), DType::kF32, std::as_bytes(std::span(values)).data(),
                     target.elements());
    copy_from_host(target, converted);
  }
}

}  // namespace

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
      dequantize_piece(ctx, piece, copy.row_range(row, row + piece.rows));
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

#include "caravan/ops/cuda/weights.h"

#include "caravan/ops/args.h"
#include "caravan/quant/dequantize.h"

namespace caravan::ops::cuda {
namespace {

constexpr char kKey[] = "cuda";

}  // namespace

void prepare_weight(Context& ctx, const Weight& weight) {
  if (weight.plain().defined() || weight.packed().contains(kKey)) {
    return;
  }
  const Tensor copy = ctx.allocate(weight.dtype(), weight.shape(), Segment::kWeights);
  if (!ctx.dry_run()) {
    if (weight.is_in_blocks()) {
      std::int64_t row = 0;
      for (const quant::BlockMatrix& piece : weight.blocks()) {
        quant::dequantize_into(copy.row_range(row, row + piece.rows), piece, ctx.threads);
        row += piece.rows;
      }
    } else {
      const Implementation<ConvertArgs>& convert = convert_list().front();
      convert.run(ctx, {copy, weight.source()}, nullptr);
    }
  }
  // Forward and backward multiply by the same copy: it stays for both.
  weight.packed()[kKey] = {copy, static_cast<unsigned>(WeightUse::kBoth)};
}

const Tensor& weight_elements(const Weight& weight) {
  return weight.plain().defined() ? weight.plain() : weight.packed().at(kKey).bytes;
}

}  // namespace caravan::ops::cuda

#include "caravan/ops/cuda/weights.h"

#include <algorithm>
#include <span>
#include <vector>

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/quant/dequantize.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops::cuda {
namespace {

constexpr char kKey[] = "cuda";

// Rows of blocks become numbers on the host, a megabyte at a time, on their way to the device.
void dequantize(const Context& ctx, const Weight& weight, const Tensor& target) {
  constexpr std::int64_t kStaged = std::int64_t{1} << 18;
  std::vector<float> values;
  std::vector<std::byte> converted;
  std::int64_t row = 0;
  for (const quant::BlockMatrix& piece : weight.blocks()) {
    const std::int64_t most = std::max<std::int64_t>(1, kStaged / std::max<std::int64_t>(1, piece.columns));
    for (std::int64_t begin = 0; begin < piece.rows; begin += most) {
      const std::int64_t end = std::min(piece.rows, begin + most);
      const Tensor part = target.row_range(row + begin, row + end);
      values.resize(static_cast<std::size_t>(part.elements()));
      converted.resize(static_cast<std::size_t>(part.bytes()));
      quant::dequantize_rows(piece, begin, end, values.data(), ctx.threads);
      convert_elements(part.dtype(), converted.data(), DType::kF32, std::as_bytes(std::span(values)).data(),
                       part.elements());
      copy_from_host(part, converted);
    }
    row += piece.rows;
  }
}

}  // namespace

void prepare_weight(Context& ctx, const Weight& weight) {
  if (weight.plain().defined() || weight.packed().contains(kKey)) {
    return;
  }
  const Tensor copy = ctx.allocate(weight.dtype(), weight.shape(), Segment::kWeights);
  if (!ctx.dry_run()) {
    if (weight.is_in_blocks()) {
      dequantize(ctx, weight, copy);
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

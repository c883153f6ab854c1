// How far a block of codes may be from the values it was made of.
//
// quantize() tries the plain rule's scale among others and keeps the best, so the plain rule's own error bounds it:
// half a step for each element (a whole one where the range has one code more on one side), what rounding the scale to
// f16 moves the largest code by, and for the K types what rounding the groups' scales to whole units does.
#include <algorithm>
#include <cmath>

#include "caravan/quant/block_layout.h"
#include "caravan/quant/fit.h"
#include "caravan/quant/quantize.h"

namespace caravan::quant {
namespace {

constexpr double kF16Relative = 0x1p-11;
constexpr double kF16Absolute = 0x1p-25;  // half of the smallest subnormal
// The arithmetic is in f32: codes at a tie may fall either way, sums round.
constexpr double kSlack = 1.0 + 1e-3;

double f16_rounding(double value) {
  return std::abs(value) * kF16Relative + kF16Absolute;
}

// Largest code `most`; by the plain rule the largest element is `most` steps.
double symmetric(const float* x, double most, bool one_sided) {
  const double step = std::abs(extreme(x, kBlock)) / most;
  const double each = (one_sided ? step : step / 2.0) + most * f16_rounding(step);
  return std::sqrt(kBlock) * each;
}

double affine(const float* x, double most) {
  const Range range = range_of(x, kBlock);
  const double step = (static_cast<double>(range.high) - range.low) / most;
  return std::sqrt(kBlock) * (step / 2.0 + most * f16_rounding(step) + f16_rounding(range.low));
}

double q4_k(const float* x) {
  constexpr int kGroup = 32;
  constexpr double kMost = 15.0;
  constexpr double kUnits = 63.0;
  // A group's least-squares fit is no worse than its range in 15 steps, but its scale may be larger: where all codes are
  // one of two neighbours, each half a step off, the line through them is twice as steep, and meets zero a whole range
  // lower.
  constexpr double kFitted = 2.0;
  double largest_step = 0.0;
  double largest_offset = 0.0;
  for (int g = 0; g < kSuperBlock; g += kGroup) {
    Range range = range_of(x + g, kGroup);
    range.low = std::min(range.low, 0.0F);
    largest_step = std::max(largest_step, (static_cast<double>(range.high) - range.low) / kMost);
    largest_offset = std::max(largest_offset, static_cast<double>(range.high) - 2.0 * range.low);
  }
  const double unit = kFitted * largest_step / kUnits;
  const double offset_unit = largest_offset / kUnits;
  double sum = 0.0;
  for (int g = 0; g < kSuperBlock; g += kGroup) {
    Range range = range_of(x + g, kGroup);
    range.low = std::min(range.low, 0.0F);
    const double step = (static_cast<double>(range.high) - range.low) / kMost;
    const double each = step / 2.0 + kMost * (unit / 2.0 + kUnits * f16_rounding(unit)) + offset_unit / 2.0 +
                        kUnits * f16_rounding(offset_unit);
    sum += kGroup * each * each;
  }
  return std::sqrt(sum);
}

double q6_k(const float* x) {
  constexpr int kGroup = 16;
  constexpr double kMost = 32.0;
  constexpr double kUnits = 127.0;
  // Half a step off in sixteen codes, one of them at least 29, tilts a line through zero by less than a tenth, and the
  // first guess is at most a tenth above the plain step.
  constexpr double kFitted = 4.0 / 3.0;
  const double unit = kFitted * std::abs(extreme(x, kSuperBlock)) / kMost / kUnits;
  double sum = 0.0;
  for (int g = 0; g < kSuperBlock; g += kGroup) {
    const double step = std::abs(extreme(x + g, kGroup)) / kMost;
    const double each = step + kMost * (unit + (kUnits + 1.0) * f16_rounding(unit));
    sum += kGroup * each * each;
  }
  return std::sqrt(sum);
}

}  // namespace

double worst_distance(BlockType type, const float* values) {
  switch (type) {
    case BlockType::kF16:
      return kSlack * f16_rounding(values[0]);
    case BlockType::kBF16:
      return kSlack * (std::abs(static_cast<double>(values[0])) * 0x1p-8 + 0x1p-134);
    case BlockType::kQ80:
      return kSlack * symmetric(values, 127.0, /*one_sided=*/false);
    case BlockType::kQ40:
      return kSlack * symmetric(values, 8.0, /*one_sided=*/true);
    case BlockType::kQ50:
      return kSlack * symmetric(values, 16.0, /*one_sided=*/true);
    case BlockType::kQ41:
      return kSlack * affine(values, 15.0);
    case BlockType::kQ51:
      return kSlack * affine(values, 31.0);
    case BlockType::kQ4K:
      return kSlack * q4_k(values);
    case BlockType::kQ6K:
      return kSlack * q6_k(values);
    default:
      return 0.0;
  }
}

}  // namespace caravan::quant

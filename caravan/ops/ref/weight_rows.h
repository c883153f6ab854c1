// How the reference reads a weight: row by row, as doubles, whether it is numbers or blocks of codes.
#pragma once

#include <cstdint>
#include <vector>

#include "caravan/ops/ref/element.h"
#include "caravan/ops/weight.h"
#include "caravan/quant/dequantize.h"

namespace caravan::ops::ref {

// T: the elements of a plain weight.
template <typename T>
class WeightRows {
 public:
  explicit WeightRows(const Weight& weight) : weight_(weight), plain_(weight.plain()), columns_(weight.shape()[1]) {}

  void read(std::int64_t row, double* out) const {
    if (!weight_.is_in_blocks()) {
      for (std::int64_t i = 0; i < columns_; ++i) {
        out[i] = load(plain_[row][i]);
      }
      return;
    }
    std::vector<float> values(static_cast<std::size_t>(columns_));
    for (const quant::BlockMatrix& piece : weight_.blocks()) {
      if (row < piece.rows) {
        quant::dequantize_rows(piece, row, row + 1, values.data(), 1);
        break;
      }
      row -= piece.rows;
    }
    for (std::int64_t i = 0; i < columns_; ++i) {
      out[i] = load(values[static_cast<std::size_t>(i)]);
    }
  }

 private:
  const Weight& weight_;
  Rows<const T> plain_;
  std::int64_t columns_;
};

}  // namespace caravan::ops::ref

// Blocks of codes to f32, with the very roundings of llama.cpp and of the `gguf` package: the same bits.
//
//   Q8_0, Q4_0, Q5_0    d * q            one scale for 32 codes
//   Q4_1, Q5_1          d * q + m        a scale and an offset
//   Q3_K, Q6_K          (d * s) * q      16 scales of 16 codes, in units of d
//   Q2_K, Q4_K, Q5_K    (d * s) * q - (dmin * m)     scales and offsets in units of d and dmin
//
// d, dmin and m are f16 in the files.  Every operation is rounded to f32; none is contracted.
#pragma once

#include <cstddef>
#include <cstdint>

#include "caravan/quant/block_type.h"
#include "caravan/tensor/tensor.h"

namespace caravan::quant {

// `elements` (a multiple of the type's block) numbers from `blocks` to `out`.  F32, F16, BF16 and F64 are converted, f64
// with one rounding.  Any bytes are valid blocks: scales may be NaN or infinite, and so are the numbers then.
// Throws ShapeError when `elements` is no multiple, UnsupportedError when the type is not readable.
void dequantize(BlockType type, const std::byte* blocks, float* out, std::int64_t elements);

// Rows [begin, end) of the matrix to `out`, [end - begin, columns], on up to `threads` threads.  Throws as above, and
// ShapeError outside the matrix.
void dequantize_rows(const BlockMatrix& matrix, std::int64_t begin, std::int64_t end, float* out, int threads);

// The whole matrix to `target`, [rows, columns] of a compute float dtype on any device, a megabyte of f32 at a time.
// Throws as above, and ShapeError when target has another shape.
void dequantize_into(const Tensor& target, const BlockMatrix& matrix, int threads);

}  // namespace caravan::quant

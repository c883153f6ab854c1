// f32 to blocks of codes, each block by itself so that the sum of squared errors is small.
//
// Where llama.cpp's own quantisers take the scale from the largest element, or weigh errors by magnitude, these search:
// several scales are tried, refitted by least squares to the codes that they give, rounded as the file keeps them, and
// the codes chosen anew for the rounded scale.  The scale that the plain rule gives is always among those tried, so no
// block of 32 is worse than by that rule.  The same input gives the same bytes whatever the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "caravan/quant/block_type.h"

namespace caravan::quant {

// `elements` (a multiple of the type's block) numbers from `values` to `blocks`.  F32, F16, BF16 and F64 are converted,
// rounding once.  NaN becomes some code, infinity a huge scale: refuse them before, the block around them is lost.
// Throws ShapeError when `elements` is no multiple, UnsupportedError when the type is not writable.
void quantize(BlockType type, const float* values, std::byte* blocks, std::int64_t elements);

// `rows` rows of `columns` elements, on up to `threads` threads; rows of blocks follow each other without gaps.
void quantize_rows(BlockType type, const float* values, std::int64_t rows, std::int64_t columns, std::byte* blocks,
                   int threads);

// An upper bound of the distance, sqrt(sum of (x - x')^2), between one block's values and what quantize() makes of them:
// what the plain rule's steps, the roundings of scales and clipping can add up to.  For checks of a written file: codes
// in a wrong order or under a wrong scale are beyond it.  0 for F32 and F64; for F16 and BF16 one element is a block.
double worst_distance(BlockType type, const float* values);

}  // namespace caravan::quant

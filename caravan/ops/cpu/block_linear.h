// y = x W^T with W in blocks of codes.
#pragma once

#include <cstdint>
#include <utility>

#include "caravan/ops/args.h"

namespace caravan::ops::cpu {

// The piece of a weight in blocks that holds a row, and the piece's first row.
std::pair<const quant::BlockMatrix*, std::int64_t> piece_of_row(const Weight& weight, std::int64_t row);

// The implementation for dispatch: "blocks".
const char* refuse_blocks(const Context& ctx, const LinearArgs& args);
std::int64_t block_linear_workspace(Context& ctx, const LinearArgs& args);
void run_block_linear(Context& ctx, const LinearArgs& args, std::byte* workspace);

}  // namespace caravan::ops::cpu

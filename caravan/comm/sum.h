// Sums over ranks whose bits depend on the ranks' order alone, never on who computes them or how many at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "caravan/tensor/dtype.h"

namespace caravan::comm {

// Whether sum_in_order() takes this type: f64, f32, bf16, f16, i64.
bool has_sum(DType dtype);

// Element i of every destination = sources[0][i] + sources[1][i] + ..., added from the left: f64 and f32 in their own
// type, i64 modulo 2^64, bf16 and f16 in f32 with one rounding at the end.  A destination may be one of the sources,
// and no address needs alignment.  Another type than these is left undone.
void sum_in_order(DType dtype, std::span<const std::byte* const> sources, std::span<std::byte* const> destinations,
                  std::int64_t count) noexcept;

}  // namespace caravan::comm

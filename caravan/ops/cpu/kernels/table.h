// The table of the kernels above; the last header of a level's translation unit.
#pragma once

#include "caravan/ops/cpu/kernels/attention_kernels.h"
#include "caravan/ops/cpu/kernels/rope_kernels.h"
#include "caravan/ops/cpu/kernels/row_kernels.h"

namespace caravan::ops::cpu {
namespace {

constexpr Kernels table_named(const char* name) {
  return {.name = name,
          .rms_norm = rms_norm,
          .swiglu = swiglu,
          .rope = rope,
          .rope_tables = rope_tables,
          .epilogue = epilogue,
          .widen = widen,
          .loss_block = loss_block,
          .attention_scratch = attention_scratch,
          .attention = attention,
          .attention_merge = attention_merge};
}

}  // namespace
}  // namespace caravan::ops::cpu

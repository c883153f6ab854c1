// The table of the kernels above; the last header of a level's translation unit.
#pragma once

#include "caravan/ops/cpu/kernels/attention_grad_kernels.h"
#include "caravan/ops/cpu/kernels/attention_kernels.h"
#include "caravan/ops/cpu/kernels/attention_pair_kernels.h"
#include "caravan/ops/cpu/kernels/block_kernels.h"
#include "caravan/ops/cpu/kernels/grad_kernels.h"
#include "caravan/ops/cpu/kernels/optimizer_kernels.h"
#include "caravan/ops/cpu/kernels/product_kernels.h"
#include "caravan/ops/cpu/kernels/reading_kernels.h"
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
          .attention_merge = attention_merge,
          .rms_norm_grad = rms_norm_grad,
          .swiglu_grad = swiglu_grad,
          .add = add,
          .convert = convert,
          .loss_grad_block = loss_grad_block,
          .column_sums = column_sums,
          .rms_norm_column_sums = rms_norm_column_sums,
          .embedding_grad = embedding_grad,
          .adamw = adamw,
          .squares = squares,
          .sum_words = sum_words,
          .attention_grad_scratch = attention_grad_scratch,
          .attention_grad = attention_grad,
          .attention_grad_merge = attention_grad_merge,
          .attention_pairs = attention_pairs,
          .attention_grad_pairs_scratch = attention_grad_pairs_scratch,
          .attention_grad_pairs = attention_grad_pairs,
          .narrow_scratch = narrow_scratch,
          .narrow_weight_grad = narrow_weight_grad,
          .code_rows = code_rows,
          .block_product = block_product,
          .unpack_blocks = unpack_blocks,
          .number_product = number_product};
}

}  // namespace
}  // namespace caravan::ops::cpu

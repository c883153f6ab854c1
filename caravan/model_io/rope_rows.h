// The order of query and key rows under the two rotary pairings.  For this room's .cc files only.
//
// Hugging Face keeps the two members of a pair half a head apart; the interleaved order keeps them side by side.  Row r
// of the interleaved matrix is row source_row(r) of Hugging Face's, head by head (torchtitan's Llama3StateDictAdapter,
// from_hf).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caravan/model/llama.h"

namespace caravan::model_io {

// Whether rows of the part of this Hugging Face name are in rotary order: the weights and biases of q_proj and k_proj.
bool has_rotary_rows(const std::string& part_name);

// Hugging Face row for every row of an interleaved matrix of `rows` rows.
std::vector<std::int64_t> interleaved_from_half(std::int64_t rows, std::int64_t head_dim);

// The way back: interleaved row for every row of Hugging Face's matrix.
std::vector<std::int64_t> half_from_interleaved(std::int64_t rows, std::int64_t head_dim);

}  // namespace caravan::model_io

#include "caravan/model_io/rope_rows.h"

namespace caravan::model_io {

bool has_rotary_rows(const std::string& part_name) {
  return part_name.find(".self_attn.q_proj.") != std::string::npos ||
         part_name.find(".self_attn.k_proj.") != std::string::npos;
}

std::vector<std::int64_t> interleaved_from_half(std::int64_t rows, std::int64_t head_dim) {
  std::vector<std::int64_t> result(static_cast<std::size_t>(rows));
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t inside = row % head_dim;
    const std::int64_t half = inside % 2;
    result[static_cast<std::size_t>(row)] = row - inside + half * (head_dim / 2) + inside / 2;
  }
  return result;
}

std::vector<std::int64_t> half_from_interleaved(std::int64_t rows, std::int64_t head_dim) {
  const std::vector<std::int64_t> order = interleaved_from_half(rows, head_dim);
  std::vector<std::int64_t> result(order.size());
  for (std::size_t row = 0; row < order.size(); ++row) {
    result[static_cast<std::size_t>(order[row])] = static_cast<std::int64_t>(row);
  }
  return result;
}

}  // namespace caravan::model_io

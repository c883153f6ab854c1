#include "caravan/ops/cpu/product.h"

#include <cstring>

namespace caravan::ops::cpu {
namespace {

// Tokens that the layout is chosen for.  oneDNN 2.6 blocks a weight by its own extents; the number only has to be one
// at which it takes the blocked path at all.
constexpr std::int64_t kReferenceTokens = 64;

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

// oneDNN sees [in, out]: which axis the plain form's rows are.
int row_axis(Direction direction) {
  return direction == Direction::kForward ? 1 : 0;
}

std::int64_t rows_per_block(const dnnl_blocking_desc_t& blocking, Direction direction) {
  std::int64_t block = 1;
  for (int i = 0; i < blocking.inner_nblks; ++i) {
    block *= blocking.inner_idxs[i] == row_axis(direction) ? blocking.inner_blks[i] : 1;
  }
  return block;
}

// "onednn f32 16a64b 1024,49152"
std::string name_of(const dnnl::memory::desc& desc, DType dtype, Direction direction) {
  const dnnl_blocking_desc_t& blocking = desc.data.format_desc.blocking;
  std::string name =
      std::string(direction == Direction::kForward ? "onednn " : "onednn input_grad ") + to_string(dtype) + " ";
  if (blocking.inner_nblks == 0) {
    return std::string("onednn plain ") + to_string(dtype);  // rows as they stand serve both directions
  }
  for (int i = 0; i < blocking.inner_nblks; ++i) {
    name += std::to_string(blocking.inner_blks[i]) + static_cast<char>('a' + blocking.inner_idxs[i]);
  }
  return name + " " + std::to_string(blocking.strides[0]) + "," + std::to_string(blocking.strides[1]);
}

}  // namespace

WeightLayout plain_weight_layout(DType dtype, std::int64_t in, std::int64_t out, Direction direction,
                                 std::int64_t stride) {
  WeightLayout layout;
  layout.dtype = dtype;
  layout.in = in;
  layout.out = out;
  layout.direction = direction;
  const std::int64_t pitch = stride == 0 ? layout.plain_columns() : stride;
  const bool forward = direction == Direction::kForward;
  layout.desc = {dnnl::memory::dims{in, out}, onednn_type(dtype),
                 forward ? dnnl::memory::dims{1, pitch} : dnnl::memory::dims{pitch, 1}};
  layout.name = name_of(layout.desc, dtype, direction);
  return layout;
}

WeightLayout make_weight_layout(const dnnl::engine& engine, DType dtype, std::int64_t in, std::int64_t out,
                                Direction direction) {
  const dnnl::memory::desc any({in, out}, onednn_type(dtype), dnnl::memory::format_tag::any);
  const dnnl::matmul::primitive_desc reference(
      {matrix_desc(dtype, kReferenceTokens, in, in), any, matrix_desc(DType::kF32, kReferenceTokens, out, out)},
      user_scratchpad(), engine);
  WeightLayout layout = plain_weight_layout(dtype, in, out, direction);
  const dnnl::memory::desc wanted = reference.weights_desc();
  const dnnl_blocking_desc_t& blocking = wanted.data.format_desc.blocking;
  // Where oneDNN wants no blocks it wants the transposed matrix, which measured no faster than the plain one.
  if (blocking.inner_nblks > 0 && kWeightBlock % rows_per_block(blocking, direction) == 0) {
    layout.blocked = true;
    layout.desc = wanted;
    layout.name = name_of(wanted, dtype, direction);
  }
  return layout;
}

dnnl::memory::desc weight_rows_desc(const WeightLayout& layout, std::int64_t count) {
  if (count == layout.plain_rows()) {
    return layout.desc;
  }
  const bool forward = layout.direction == Direction::kForward;
  if (!layout.blocked) {
    return forward ? plain_weight_layout(layout.dtype, layout.in, count).desc
                   : plain_weight_layout(layout.dtype, count, layout.out, layout.direction).desc;
  }
  // A piece that is not whole blocks can only be the last one.
  const std::int64_t first = count % kWeightBlock == 0 ? 0 : layout.plain_rows() - count;
  dnnl::memory::desc rows = forward ? layout.desc.submemory_desc({layout.in, count}, {0, first})
                                    : layout.desc.submemory_desc({count, layout.out}, {first, 0});
  // The offset is the caller's to add: few implementations take a descriptor that has one.
  rows.data.offset0 = 0;
  return rows;
}

std::int64_t weight_rows_offset(const WeightLayout& layout, std::int64_t first) {
  const std::int64_t size = size_of(layout.dtype);
  if (!layout.blocked) {
    return first * layout.plain_columns() * size;
  }
  const dnnl_blocking_desc_t& blocking = layout.desc.data.format_desc.blocking;
  return first / rows_per_block(blocking, layout.direction) * blocking.strides[row_axis(layout.direction)] * size;
}

Product::Product(const dnnl::engine& engine, const ProductSpec& spec, const WeightLayout& layout) {
  const dnnl::memory::desc weight =
      layout.direction == Direction::kForward ? weight_rows_desc(layout, spec.rows) : layout.desc;
  const dnnl::memory::desc x(
      {spec.tokens, layout.in}, onednn_type(spec.x_dtype),
      spec.x_turned ? dnnl::memory::dims{1, spec.x_stride} : dnnl::memory::dims{spec.x_stride, 1});
  const dnnl::memory::desc y = matrix_desc(spec.y_dtype, spec.tokens, spec.rows, spec.y_stride);
  const dnnl::memory::desc bias = matrix_desc(spec.x_dtype, 1, spec.rows, spec.rows);
  dnnl::primitive_attr attributes = user_scratchpad();
  dnnl::post_ops after;
  if (spec.residual == Residual::kInPlace) {
    after.append_sum(1.0F);
  } else if (spec.residual == Residual::kBeside) {
    after.append_binary(dnnl::algorithm::binary_add, y);
    residual_argument_ = DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1;
  }
  attributes.set_post_ops(after);
  descriptor_ = {spec.bias ? dnnl::matmul::desc(x, weight, bias, y) : dnnl::matmul::desc(x, weight, y), attributes,
                 engine};
  arguments_.emplace(DNNL_ARG_SRC, dnnl::memory(x, engine, nullptr));
  arguments_.emplace(DNNL_ARG_WEIGHTS, dnnl::memory(weight, engine, nullptr));
  arguments_.emplace(DNNL_ARG_DST, dnnl::memory(y, engine, nullptr));
  arguments_.emplace(DNNL_ARG_SCRATCHPAD, dnnl::memory(descriptor_.scratchpad_desc(), engine, nullptr));
  if (spec.bias) {
    arguments_.emplace(DNNL_ARG_BIAS, dnnl::memory(bias, engine, nullptr));
  }
  if (residual_argument_ != 0) {
    arguments_.emplace(residual_argument_, dnnl::memory(y, engine, nullptr));
  }
}

std::int64_t Product::scratch_bytes() const {
  return static_cast<std::int64_t>(descriptor_.scratchpad_desc().get_size());
}

bool Product::slow() const {
  return std::strstr(descriptor_.impl_info_str(), "ref") != nullptr;
}

void Product::run(dnnl::stream& stream, const ProductCall& call) {
  const auto point = [this](int argument, const std::byte* address) {
    // oneDNN's handles are not const; it writes to the destination and the scratchpad alone.
    arguments_.at(argument).set_data_handle(const_cast<std::byte*>(address));
  };
  point(DNNL_ARG_SRC, call.x);
  point(DNNL_ARG_WEIGHTS, call.weight);
  point(DNNL_ARG_DST, call.y);
  point(DNNL_ARG_SCRATCHPAD, call.scratch);
  if (call.bias != nullptr) {
    point(DNNL_ARG_BIAS, call.bias);
  }
  if (residual_argument_ != 0) {
    point(residual_argument_, call.residual);
  }
  if (!primitive_) {
    primitive_.emplace(descriptor_);
  }
  primitive_->execute(stream, arguments_);
  stream.wait();
}

}  // namespace caravan::ops::cpu

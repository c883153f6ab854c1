// Products of oneDNN: y = x W^T (+ bias) (+ residual) or y = x W (+ residual), W in a layout of oneDNN's choice.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>

#include "caravan/ops/cpu/onednn.h"

namespace caravan::ops::cpu {

// Which product a weight is stored for.
enum class Direction {
  kForward,    // x W^T: the plain form is [out, in]
  kInputGrad,  // dy W: the plain form is [in, out], with in and out as this product has them
};

// How a weight is stored for products that take `in` features to `out`: blocked, as oneDNN wants it for any number of
// tokens, or row by row.
struct WeightLayout {
  DType dtype = DType::kF32;  // of the stored elements
  std::int64_t in = 0;
  std::int64_t out = 0;
  Direction direction = Direction::kForward;
  bool blocked = false;
  dnnl::memory::desc desc;  // of the matrix [in, out], which is how oneDNN sees it
  std::string name;         // the key of Weight::packed()

  std::int64_t bytes() const { return static_cast<std::int64_t>(desc.get_size()); }
  // Of the plain form.
  std::int64_t plain_rows() const { return direction == Direction::kForward ? out : in; }
  std::int64_t plain_columns() const { return direction == Direction::kForward ? in : out; }
};

WeightLayout make_weight_layout(const dnnl::engine& engine, DType dtype, std::int64_t in, std::int64_t out,
                                Direction direction = Direction::kForward);
// The row-by-row layout: the plain form's own.  `stride` in elements; 0 means that the rows touch.
WeightLayout plain_weight_layout(DType dtype, std::int64_t in, std::int64_t out,
                                 Direction direction = Direction::kForward, std::int64_t stride = 0);

// Pieces of the plain form's rows, for products (of the forward direction) and packing piece by piece.  A piece begins
// at a multiple of kWeightBlock and ends at one or at the last row.  Pieces of equal extent have equal descriptors, so
// they share a plan.
inline constexpr std::int64_t kWeightBlock = 64;
dnnl::memory::desc weight_rows_desc(const WeightLayout& layout, std::int64_t count);
// Bytes from the begin of the weight's storage to row `first`.
std::int64_t weight_rows_offset(const WeightLayout& layout, std::int64_t first);

// How the residual enters.
enum class Residual {
  kNone,
  kInPlace,  // it is y itself
  kBeside,   // another matrix of y's dtype and stride
};

struct ProductSpec {
  std::int64_t tokens = 0;
  DType x_dtype = DType::kF32;  // the weight's too
  std::int64_t x_stride = 0;
  bool x_turned = false;  // x stands as [in, tokens]: the product is x^T W, as a weight's gradient is
  DType y_dtype = DType::kF32;
  std::int64_t y_stride = 0;
  std::int64_t rows = 0;  // of the weight (a piece or all), columns of y
  bool bias = false;      // of x's dtype
  Residual residual = Residual::kNone;
};

// The addresses of one call.
struct ProductCall {
  std::byte* y = nullptr;
  const std::byte* x = nullptr;
  const std::byte* weight = nullptr;  // of the rows' first
  const std::byte* bias = nullptr;
  const std::byte* residual = nullptr;
  std::byte* scratch = nullptr;
};

// One matmul primitive.  Its code is generated at the first run(), so a dry run stays cheap.
class Product {
 public:
  Product(const dnnl::engine& engine, const ProductSpec& spec, const WeightLayout& layout);

  std::int64_t scratch_bytes() const;
  // oneDNN has nothing but its plain loops for this layout.
  bool slow() const;
  // The implementation's name in oneDNN.
  const char* implementation() const { return descriptor_.impl_info_str(); }
  void run(dnnl::stream& stream, const ProductCall& call);

 private:
  dnnl::matmul::primitive_desc descriptor_;
  std::optional<dnnl::matmul> primitive_;
  std::unordered_map<int, dnnl::memory> arguments_;
  int residual_argument_ = 0;
};

}  // namespace caravan::ops::cpu

// Products of oneDNN: y = x W^T (+ bias) (+ residual), W in a layout of oneDNN's choice.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>

#include "caravan/ops/cpu/onednn.h"

namespace caravan::ops::cpu {

// How a weight [out, in] is stored for products: blocked, as oneDNN wants it for any number of tokens, or row by row.
struct WeightLayout {
  DType dtype = DType::kF32;  // of the stored elements
  std::int64_t in = 0;
  std::int64_t out = 0;
  bool blocked = false;
  dnnl::memory::desc desc;  // of the transposed matrix [in, out], which is how oneDNN sees it
  std::string name;         // the key of Weight::packed()

  std::int64_t bytes() const { return static_cast<std::int64_t>(desc.get_size()); }
};

WeightLayout make_weight_layout(const dnnl::engine& engine, DType dtype, std::int64_t in, std::int64_t out);
// The row-by-row layout: the plain form's own.
WeightLayout plain_weight_layout(DType dtype, std::int64_t in, std::int64_t out);

// Pieces of a weight's rows, for products and packing piece by piece.  A piece begins at a multiple of kWeightBlock and
// ends at one or at the last row.  Pieces of equal extent have equal descriptors, so they share a plan.
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

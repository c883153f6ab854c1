// cuDNN's graphs of scaled dot-product attention, made once a shape.  The library is loaded when the first is made.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>

#include "caravan/tensor/dtype.h"

namespace caravan::ops::cuda {

// Rows of one tensor of a batch: elements from one sequence to the next (of equal lengths, side by side) and from one row
// to the next.
struct SdpaStrides {
  std::int64_t batch = 0, row = 0;
  auto operator<=>(const SdpaStrides&) const = default;
};

// What a graph is made for.  `ragged`: sequences of unlike lengths up to `length` queries and `key_length` keys, whose lengths
// and begins are given when it runs; else `batch` sequences of exactly so many rows.
struct SdpaShape {
  bool backward = false;
  bool ragged = false;
  bool bottom_right = false;  // the last query sees the last key; else the first query sees the first key alone
  bool with_stats = false;    // the forward one keeps the log of the softmax's denominator
  bool deterministic = true;
  DType dtype = DType::kBF16;
  std::int64_t batch = 0, length = 0, key_length = 0, heads = 0, kv_heads = 0, head_dim = 0;
  SdpaStrides query, key, value, out, d_out, d_query, d_key, d_value;
  double scale = 0.0;

  auto operator<=>(const SdpaShape&) const = default;
};

// Device addresses.  stats: [batch, heads, length] f32.  Of a ragged graph: lengths [batch] i32, begins [batch + 1] i32 in
// elements.
struct SdpaPointers {
  void *query = nullptr, *key = nullptr, *value = nullptr, *out = nullptr, *stats = nullptr;
  void *d_out = nullptr, *d_query = nullptr, *d_key = nullptr, *d_value = nullptr;
  void *query_lengths = nullptr, *key_lengths = nullptr;
  void *query_begins = nullptr, *key_begins = nullptr, *value_begins = nullptr, *out_begins = nullptr;
  void *d_out_begins = nullptr, *d_query_begins = nullptr, *d_key_begins = nullptr, *d_value_begins = nullptr;
};

class Cudnn;

class SdpaGraph {
 public:
  // Throws UnsupportedError when cuDNN has no plan for the shape, with its words.
  SdpaGraph(Cudnn& cudnn, const SdpaShape& shape);
  ~SdpaGraph();
  SdpaGraph(const SdpaGraph&) = delete;
  SdpaGraph& operator=(const SdpaGraph&) = delete;

  std::int64_t workspace() const { return workspace_; }
  // On the calling thread's stream.
  void run(const SdpaPointers& pointers, void* workspace);

 private:
  struct Made;
  Cudnn& cudnn_;
  std::unique_ptr<Made> made_;
  std::int64_t workspace_ = 0;
};

// The library's handle.  Throws UnsupportedError when cuDNN 9 is not there.
std::shared_ptr<Cudnn> open_cudnn();

}  // namespace caravan::ops::cuda

// cuDNN's attention on the emulated device, where CARAVAN_EMULATION_CUDNN=1 asks for it: plain loops with cuDNN's layouts, so
// that what stands around its graphs is tested.  Like cuDNN's, its backward reads the statistics of rows behind a ragged
// sequence's end, and its workspace is written over.
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/ops/cuda/cudnn_graph.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"

namespace caravan::ops::cuda {
namespace {

constexpr std::int64_t kWorkspace = 1024;

// One tensor's rows of one sequence.
template <typename T>
struct Sequence {
  T* base;
  std::int64_t row_stride, head_dim;

  T* at(std::int64_t row, std::int64_t head) const { return base + row * row_stride + head * head_dim; }
};

// The sequence and the heads of one kv head that a thread computes.
template <typename T>
class Task {
 public:
  Task(const SdpaShape& shape, const SdpaPointers& pointers)
      : s_(shape), p_(pointers), batch_(blockIdx.x), kv_head_(blockIdx.y), group_(shape.heads / shape.kv_heads) {
    queries_ = s_.ragged ? static_cast<const std::int32_t*>(p_.query_lengths)[batch_] : s_.length;
    keys_ = s_.ragged ? static_cast<const std::int32_t*>(p_.key_lengths)[batch_] : s_.key_length;
    query_ = sequence(p_.query, p_.query_begins, s_.query);
    key_ = sequence(p_.key, p_.key_begins, s_.key);
    value_ = sequence(p_.value, p_.value_begins, s_.value);
    out_ = sequence(p_.out, p_.out_begins, s_.out);
    if (s_.backward) {
      d_out_ = sequence(p_.d_out, p_.d_out_begins, s_.d_out);
      d_query_ = sequence(p_.d_query, p_.d_query_begins, s_.d_query);
      d_key_ = sequence(p_.d_key, p_.d_key_begins, s_.d_key);
      d_value_ = sequence(p_.d_value, p_.d_value_begins, s_.d_value);
    }
  }

  void run() const { s_.backward ? backward() : forward(); }

 private:
  Sequence<T> sequence(void* base, const void* begins, const SdpaStrides& strides) const {
    const std::int64_t begin = s_.ragged ? static_cast<const std::int32_t*>(begins)[batch_] : batch_ * strides.batch;
    return {static_cast<T*>(base) + begin, strides.row, s_.head_dim};
  }

  float& stat(std::int64_t row, std::int64_t head) const {
    return static_cast<float*>(p_.stats)[(batch_ * s_.heads + head) * s_.length + row];
  }

  float dot(const T* a, const T* b) const {
    float sum = 0;
    for (std::int64_t i = 0; i < s_.head_dim; ++i) {
      sum += load(a[i]) * load(b[i]);
    }
    return sum;
  }

  std::int64_t visible(std::int64_t row) const {
    return std::min(keys_, row + 1 + (s_.bottom_right ? keys_ - queries_ : 0));
  }

  float score(std::int64_t row, std::int64_t key, std::int64_t head) const {
    return dot(query_.at(row, head), key_.at(key, kv_head_)) * static_cast<float>(s_.scale);
  }

  void forward() const {
    for (std::int64_t head = kv_head_ * group_; head < (kv_head_ + 1) * group_; ++head) {
      for (std::int64_t row = 0; row < queries_; ++row) {
        const std::int64_t keys = visible(row);
        float top = -INFINITY;
        for (std::int64_t k = 0; k < keys; ++k) {
          top = std::max(top, score(row, k, head));
        }
        std::vector<float> sums(static_cast<std::size_t>(s_.head_dim), 0.0F);
        float total = 0;
        for (std::int64_t k = 0; k < keys; ++k) {
          const float weight = std::exp(score(row, k, head) - top);
          total += weight;
          for (std::int64_t i = 0; i < s_.head_dim; ++i) {
            sums[static_cast<std::size_t>(i)] += weight * load(value_.at(k, kv_head_)[i]);
          }
        }
        for (std::int64_t i = 0; i < s_.head_dim; ++i) {
          out_.at(row, head)[i] = round_to<T>(sums[static_cast<std::size_t>(i)] / total);
        }
        if (s_.with_stats) {
          stat(row, head) = top + std::log(total);
        }
      }
    }
  }

  void backward() const {
    const auto elements = static_cast<std::size_t>(keys_ * s_.head_dim);
    std::vector<float> d_keys(elements, 0.0F), d_values(elements, 0.0F);
    for (std::int64_t head = kv_head_ * group_; head < (kv_head_ + 1) * group_; ++head) {
      for (std::int64_t row = 0; row < s_.length; ++row) {
        backward_row(head, row, d_keys, d_values);
      }
    }
    for (std::int64_t k = 0; k < keys_; ++k) {
      for (std::int64_t i = 0; i < s_.head_dim; ++i) {
        const auto at = static_cast<std::size_t>(k * s_.head_dim + i);
        d_key_.at(k, kv_head_)[i] = round_to<T>(d_keys[at]);
        d_value_.at(k, kv_head_)[i] = round_to<T>(d_values[at]);
      }
    }
  }

  // Rows behind the sequence's end are zeros, whose weights follow from their statistics.
  void backward_row(std::int64_t head, std::int64_t row, std::vector<float>& d_keys,
                    std::vector<float>& d_values) const {
    const bool there = row < queries_;
    const float delta = there ? dot(d_out_.at(row, head), out_.at(row, head)) : 0.0F;
    std::vector<float> d_query(static_cast<std::size_t>(s_.head_dim), 0.0F);
    for (std::int64_t k = 0; k < (there ? visible(row) : keys_); ++k) {
      const float weight = std::exp((there ? score(row, k, head) : 0.0F) - stat(row, head));
      const float slope = weight * ((there ? dot(d_out_.at(row, head), value_.at(k, kv_head_)) : 0.0F) - delta) *
                          static_cast<float>(s_.scale);
      for (std::int64_t i = 0; i < s_.head_dim; ++i) {
        const auto at = static_cast<std::size_t>(k * s_.head_dim + i);
        d_values[at] += weight * (there ? load(d_out_.at(row, head)[i]) : 0.0F);
        d_keys[at] += slope * (there ? load(query_.at(row, head)[i]) : 0.0F);
        d_query[static_cast<std::size_t>(i)] += slope * load(key_.at(k, kv_head_)[i]);
      }
    }
    for (std::int64_t i = 0; i < s_.head_dim && there; ++i) {
      d_query_.at(row, head)[i] = round_to<T>(d_query[static_cast<std::size_t>(i)]);
    }
  }

  SdpaShape s_;
  SdpaPointers p_;
  std::int64_t batch_, kv_head_, group_, queries_ = 0, keys_ = 0;
  Sequence<T> query_{}, key_{}, value_{}, out_{}, d_out_{}, d_query_{}, d_key_{}, d_value_{};
};

template <typename T>
void sdpa_kernel(SdpaShape shape, SdpaPointers pointers, void* workspace) {
  std::memset(workspace, 0xff, kWorkspace);
  Task<T>(shape, pointers).run();
}

}  // namespace

class Cudnn {};

struct SdpaGraph::Made {
  SdpaShape shape;
};

std::shared_ptr<Cudnn> open_cudnn() {
  const char* wanted = std::getenv("CARAVAN_EMULATION_CUDNN");
  if (wanted == nullptr || std::string_view(wanted) != "1") {
    throw UnsupportedError("the emulated device has no cuDNN");
  }
  return std::make_shared<Cudnn>();
}

SdpaGraph::SdpaGraph(Cudnn& cudnn, const SdpaShape& shape)
    : cudnn_(cudnn), made_(std::make_unique<Made>(shape)), workspace_(kWorkspace) {}

SdpaGraph::~SdpaGraph() = default;

void SdpaGraph::run(const SdpaPointers& pointers, void* workspace) {
  const SdpaShape& shape = made_->shape;
  const dim3 grid(static_cast<unsigned>(shape.batch), static_cast<unsigned>(shape.kv_heads));
  if (shape.dtype == DType::kBF16) {
    launch("attention", sdpa_kernel<__nv_bfloat16>, grid, 1, 0, shape, pointers, workspace);
  } else {
    launch("attention", sdpa_kernel<__half>, grid, 1, 0, shape, pointers, workspace);
  }
}

}  // namespace caravan::ops::cuda

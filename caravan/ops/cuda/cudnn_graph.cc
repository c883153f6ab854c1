#include "caravan/ops/cuda/cudnn_graph.h"

#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <unordered_map>

#include "caravan/base/error.h"
#include "caravan/tensor/cuda_api.h"

// The library that cuDNN's header-only front end calls into: it asks for this variable by this name.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace caravan::ops::cuda {

namespace fe = cudnn_frontend;

class Cudnn {
 public:
  Cudnn() {
    if (const cudnnStatus_t status = fe::detail::create_handle(&handle_); status != CUDNN_STATUS_SUCCESS) {
      throw UnsupportedError(std::string("cuDNN cannot be started here: ") + fe::detail::get_error_string(status));
    }
    fe::detail::set_stream(handle_, cudaStreamPerThread);
  }
  ~Cudnn() { fe::detail::destroy_handle(handle_); }
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  cudnnHandle_t handle() const { return handle_; }

 private:
  cudnnHandle_t handle_ = nullptr;
};

std::shared_ptr<Cudnn> open_cudnn() {
  if (fe::cudnn_dlhandle == nullptr) {
    fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL);
  }
  if (fe::cudnn_dlhandle == nullptr) {
    throw UnsupportedError("libcudnn.so.9 was not found; install cuDNN 9 or name its folder in LD_LIBRARY_PATH");
  }
  return std::make_shared<Cudnn>();
}

namespace {

enum Uid : std::int64_t {
  kQuery = 1,
  kKey,
  kValue,
  kOut,
  kStats,
  kDOut,
  kDQuery,
  kDKey,
  kDValue,
  kQueryLengths,
  kKeyLengths,
  kQueryBegins,
  kKeyBegins,
  kValueBegins,
  kOutBegins,
  kDOutBegins,
  kDQueryBegins,
  kDKeyBegins,
  kDValueBegins
};

using TensorPointer = std::shared_ptr<fe::graph::Tensor_attributes>;

// Whether the library failed, rather than having no kernel for the case.
bool is_fault(fe::error_t& error) {
  switch (error.get_code()) {
    case fe::error_code_t::CUDA_API_FAILED:
    case fe::error_code_t::GRAPH_EXECUTION_FAILED:
    case fe::error_code_t::INVALID_CUDA_DEVICE:
    case fe::error_code_t::HANDLE_ERROR:
    case fe::error_code_t::NVRTC_COMPILATION_FAILED:
      return true;
    default: {
      const std::string words = error.get_message();
      return words.find("ALLOC_FAILED") != std::string::npos || words.find("INTERNAL_ERROR") != std::string::npos ||
             words.find("EXECUTION_FAILED") != std::string::npos;
    }
  }
}

// Throws UnsupportedError where kernels of ours are to take the case, DeviceError where something is broken.
void require(fe::error_t error, const char* what) {
  if (error.is_bad()) {
    const std::string message = std::string("cuDNN: ") + what + ": " + error.get_message();
    if (is_fault(error)) {
      throw DeviceError(message);
    }
    throw UnsupportedError(message);
  }
}

}  // namespace

struct SdpaGraph::Made {
  fe::graph::Graph graph;
  SdpaShape shape;

  explicit Made(const SdpaShape& wanted) : shape(wanted) {
    graph.set_io_data_type(wanted.dtype == DType::kBF16 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::HALF)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (shape.ragged) {
      query_lengths = ints("query_lengths", kQueryLengths, shape.batch);
      key_lengths = ints("key_lengths", kKeyLengths, shape.batch);
    }
    query = rows("query", kQuery, false, shape.query, kQueryBegins);
    key = rows("key", kKey, true, shape.key, kKeyBegins);
    value = rows("value", kValue, true, shape.value, kValueBegins);
    if (shape.backward) {
      add_backward();
    } else {
      add_forward();
    }
  }

 private:
  TensorPointer ints(const char* name, Uid uid, std::int64_t count) {
    return graph.tensor(fe::graph::Tensor_attributes()
                            .set_name(name)
                            .set_uid(uid)
                            .set_dim({count, 1, 1, 1})
                            .set_stride({1, 1, 1, 1})
                            .set_data_type(fe::DataType_t::INT32));
  }

  // Names a tensor of rows: [batch, heads, length, head_dim] of queries or of keys.
  void describe(fe::graph::Tensor_attributes& tensor, const char* name, Uid uid, bool of_keys,
                const SdpaStrides& strides, Uid begins) {
    tensor.set_name(name)
        .set_uid(uid)
        .set_dim({shape.batch, of_keys ? shape.kv_heads : shape.heads, of_keys ? shape.key_length : shape.length,
                  shape.head_dim})
        .set_stride({strides.batch, shape.head_dim, strides.row, 1});
    if (shape.ragged) {
      tensor.set_ragged_offset(ints((std::string(name) + "_begins").c_str(), begins, shape.batch + 1));
    }
  }

  TensorPointer rows(const char* name, Uid uid, bool of_keys, const SdpaStrides& strides, Uid begins) {
    fe::graph::Tensor_attributes attributes;
    describe(attributes, name, uid, of_keys, strides, begins);
    return graph.tensor(attributes);
  }

  void write(const TensorPointer& tensor, const char* name, Uid uid, bool of_keys, const SdpaStrides& strides,
             Uid begins) {
    tensor->set_output(true);
    describe(*tensor, name, uid, of_keys, strides, begins);
  }

  template <typename Options>
  void mask(Options& options) {
    if (shape.bottom_right) {
      options.set_causal_mask_bottom_right(true);
    } else {
      options.set_causal_mask(true);
    }
    if (shape.ragged) {
      options.set_padding_mask(true).set_seq_len_q(query_lengths).set_seq_len_kv(key_lengths);
    }
  }

  void add_forward() {
    auto options = fe::graph::SDPA_attributes()
                       .set_name("attention")
                       .set_generate_stats(shape.with_stats)
                       .set_attn_scale(static_cast<float>(shape.scale));
    mask(options);
    auto [out, stats] = graph.sdpa(query, key, value, options);
    write(out, "out", kOut, false, shape.out, kOutBegins);
    if (shape.with_stats) {
      stats->set_output(true)
          .set_name("stats")
          .set_uid(kStats)
          .set_data_type(fe::DataType_t::FLOAT)
          .set_dim({shape.batch, shape.heads, shape.length, 1})
          .set_stride({shape.heads * shape.length, shape.length, 1, 1});
    }
  }

  void add_backward() {
    const TensorPointer out = rows("out", kOut, false, shape.out, kOutBegins);
    const TensorPointer d_out = rows("d_out", kDOut, false, shape.d_out, kDOutBegins);
    const TensorPointer stats = graph.tensor(fe::graph::Tensor_attributes()
                                                 .set_name("stats")
                                                 .set_uid(kStats)
                                                 .set_data_type(fe::DataType_t::FLOAT)
                                                 .set_dim({shape.batch, shape.heads, shape.length, 1})
                                                 .set_stride({shape.heads * shape.length, shape.length, 1, 1}));
    auto options = fe::graph::SDPA_backward_attributes()
                       .set_name("attention_grad")
                       .set_attn_scale(static_cast<float>(shape.scale))
                       .set_deterministic_algorithm(shape.deterministic);
    mask(options);
    auto [d_query, d_key, d_value] = graph.sdpa_backward(query, key, value, out, d_out, stats, options);
    write(d_query, "d_query", kDQuery, false, shape.d_query, kDQueryBegins);
    write(d_key, "d_key", kDKey, true, shape.d_key, kDKeyBegins);
    write(d_value, "d_value", kDValue, true, shape.d_value, kDValueBegins);
  }

  TensorPointer query, key, value, query_lengths, key_lengths;
};

SdpaGraph::SdpaGraph(Cudnn& cudnn, const SdpaShape& shape) : cudnn_(cudnn), made_(std::make_unique<Made>(shape)) {
  require(made_->graph.validate(), "attention");
  require(made_->graph.build_operation_graph(cudnn.handle()), "attention");
  require(made_->graph.create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK}), "attention");
  require(made_->graph.check_support(), "attention");
  require(made_->graph.build_plans(), "attention");
  std::int64_t bytes = 0;
  require(made_->graph.get_workspace_size(bytes), "attention");
  workspace_ = bytes;
}

SdpaGraph::~SdpaGraph() = default;

void SdpaGraph::run(const SdpaPointers& p, void* workspace) {
  std::unordered_map<std::int64_t, void*> pointers = {
      {kQuery, p.query}, {kKey, p.key}, {kValue, p.value}, {kOut, p.out}};
  const SdpaShape& shape = made_->shape;
  if (shape.backward || shape.with_stats) {
    pointers[kStats] = p.stats;
  }
  if (shape.backward) {
    pointers.insert({{kDOut, p.d_out}, {kDQuery, p.d_query}, {kDKey, p.d_key}, {kDValue, p.d_value}});
  }
  if (shape.ragged) {
    pointers.insert({{kQueryLengths, p.query_lengths},
                     {kKeyLengths, p.key_lengths},
                     {kQueryBegins, p.query_begins},
                     {kKeyBegins, p.key_begins},
                     {kValueBegins, p.value_begins},
                     {kOutBegins, p.out_begins}});
    if (shape.backward) {
      pointers.insert({{kDOutBegins, p.d_out_begins},
                       {kDQueryBegins, p.d_query_begins},
                       {kDKeyBegins, p.d_key_begins},
                       {kDValueBegins, p.d_value_begins}});
    }
  }
  fe::detail::set_stream(cudnn_.handle(), cudaStreamPerThread);
  if (fe::error_t error = made_->graph.execute(cudnn_.handle(), pointers, workspace); error.is_bad()) {
    throw DeviceError("cuDNN: attention: " + error.get_message());
  }
}

}  // namespace caravan::ops::cuda

#include "caravan/ops/cuda/gemm.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <tuple>
#include <vector>

#include "caravan/ops/cuda/cublaslt.h"
#include "caravan/ops/cuda/event.h"
#include "caravan/ops/cuda/state.h"

namespace caravan::ops {
namespace cuda {
namespace {

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return CUDA_R_64F;
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kF16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

// The largest power of two up to 16 that divides the address: kernels that copy tiles ask for 16 bytes.  More is not told
// apart, so that where a tensor happens to lie changes neither the number of plans nor the order of sums.
std::uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  std::uint32_t alignment = 16;
  while (alignment > 1 && address % alignment != 0) {
    alignment /= 2;
  }
  return alignment;
}

}  // namespace

// All that the choice of an algorithm depends on.
using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t,                                    // m, n, k
                       std::int64_t, std::int64_t, std::int64_t, std::int64_t,                      // strides
                       unsigned,                                                                    // flags
                       std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t>;  // alignments

Key key_of(const Gemm& g) {
  const unsigned flags = static_cast<unsigned>(g.in) | static_cast<unsigned>(g.out) << 4 |
                         static_cast<unsigned>(g.a.transposed) << 8 | static_cast<unsigned>(g.b.transposed) << 9 |
                         static_cast<unsigned>(g.bias != nullptr) << 10 | static_cast<unsigned>(g.beta != 0.0) << 11;
  const bool reads_c = g.beta != 0.0;
  return {g.m,
          g.n,
          g.k,
          g.a.stride,
          g.b.stride,
          reads_c ? g.c_stride : g.d_stride,
          g.d_stride,
          flags,
          alignment_of(g.a.data),
          alignment_of(g.b.data),
          alignment_of(reads_c ? g.c : g.d),
          alignment_of(g.d),
          alignment_of(g.bias)};  // 16 for none
}

// cuBLASLt's descriptions of one product, and the algorithm for it.
//
// The library thinks in columns: rows of ours are its columns, so that a row-major d = a b is its d' = b' a'.  Its first
// matrix is therefore our b, its second our a, and its rows are our columns n; the bias, which it adds along rows, is ours
// along columns.
class Plan {
 public:
  // `candidates`: how many algorithms the library is asked for.
  Plan(cublasLtHandle_t handle, const Gemm& g, int candidates) : lt_(cublaslt()) {
    const bool f64 = g.in == DType::kF64;
    check_cublaslt(
        lt_.desc_create(&desc_, f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, f64 ? CUDA_R_64F : CUDA_R_32F),
        "describing a product");
    set(CUBLASLT_MATMUL_DESC_TRANSA, g.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, g.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (g.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
    }
    const bool reads_c = g.beta != 0.0;
    first_ = layout(g.in, g.b.transposed ? g.k : g.n, g.b.transposed ? g.n : g.k, g.b.stride);
    second_ = layout(g.in, g.a.transposed ? g.m : g.k, g.a.transposed ? g.k : g.m, g.a.stride);
    addend_ = layout(g.out, g.n, g.m, reads_c ? g.c_stride : g.d_stride);
    result_ = layout(g.out, g.n, g.m, g.d_stride);
    find_candidates(handle, g, candidates);
  }
  ~Plan() {
    (void)lt_.layout_destroy(first_);
    (void)lt_.layout_destroy(second_);
    (void)lt_.layout_destroy(addend_);
    (void)lt_.layout_destroy(result_);
    (void)lt_.desc_destroy(desc_);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  bool found() const { return !candidates_.empty(); }

  // Takes the fastest of the candidates on these operands.  `result` stands in for d, with d's strides, so that nothing
  // is written where the product goes.  One that fails is none.
  void tune(cublasLtHandle_t handle, Gemm g, std::byte* result, std::byte* scratch) {
    constexpr int kRuns = 3;  // the fastest counts; the first of each loads its kernel
    g.d = result;
    float best = std::numeric_limits<float>::infinity();
    std::size_t chosen = 0;
    const Event begin;
    const Event end;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      chosen_ = i;
      for (int run_number = 0; run_number <= kRuns; ++run_number) {
        begin.record();
        if (multiply(handle, g, scratch) != CUBLAS_STATUS_SUCCESS) {
          break;
        }
        end.record();
        const float milliseconds = end.since(begin);
        if (run_number > 0 && milliseconds < best) {
          best = milliseconds;
          chosen = i;
        }
      }
    }
    chosen_ = chosen;
  }

  void run(cublasLtHandle_t handle, const Gemm& g, std::byte* scratch) {
    check_cublaslt(multiply(handle, g, scratch), "multiplying");
  }

 private:
  static constexpr std::int64_t kScratchAlignment = 256;
  static constexpr std::int64_t kScratch = kGemmWorkspace - kScratchAlignment;

  cublasStatus_t multiply(cublasLtHandle_t handle, const Gemm& g, std::byte* scratch) {
    // The library's kernels take scratch at multiples of 256 bytes, blocks of ours stand at multiples of 64.
    std::byte* const workspace = scratch + (kScratchAlignment - alignment_rest(scratch)) % kScratchAlignment;
    if (g.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, g.bias);
    }
    const auto alpha = static_cast<float>(g.alpha);
    const auto beta = static_cast<float>(g.beta);
    const bool f64 = g.in == DType::kF64;
    const void* const c = g.beta != 0.0 ? static_cast<const void*>(g.c) : g.d;
    return lt_.matmul(handle, desc_, f64 ? static_cast<const void*>(&g.alpha) : &alpha, g.b.data, first_, g.a.data,
                      second_, f64 ? static_cast<const void*>(&g.beta) : &beta, c, addend_, g.d, result_,
                      &candidates_[chosen_], workspace, static_cast<std::size_t>(kScratch), stream());
  }

  static std::int64_t alignment_rest(const std::byte* pointer) {
    return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(pointer) % kScratchAlignment);
  }

  template <typename Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value) {
    check_cublaslt(lt_.desc_set(desc_, attribute, &value, sizeof(value)), "describing a product");
  }

  cublasLtMatrixLayout_t layout(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
    cublasLtMatrixLayout_t made = nullptr;
    // A single column's distance to the next is nobody's, but the library wants it to be at least a column.
    check_cublaslt(lt_.layout_create(&made, type_of(dtype), static_cast<std::uint64_t>(rows),
                                     static_cast<std::uint64_t>(columns), std::max(stride, rows)),
                   "describing a matrix");
    return made;
  }

  // The library's heuristics name them, the one that it thinks fastest first.
  void find_candidates(cublasLtHandle_t handle, const Gemm& g, int most) {
    cublasLtMatmulPreference_t preference = nullptr;
    check_cublaslt(lt_.preference_create(&preference), "stating preferences");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      check_cublaslt(lt_.preference_set(preference, attribute, &value, sizeof(value)), "stating preferences");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(kScratch));
    // Parts of a sum meet in scratch in f32 and in a fixed order, or there are no parts: same bits every run.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(g.b.data));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(g.a.data));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(g.beta != 0.0 ? g.c : g.d));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(g.d));
    std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(most));
    int count = 0;
    const cublasStatus_t status =
        lt_.heuristic(handle, desc_, first_, second_, addend_, result_, preference, most, results.data(), &count);
    (void)lt_.preference_destroy(preference);
    // Kernels of ours multiply what the library has no kernel for; any other answer is a fault.
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
      return;
    }
    check_cublaslt(status, "looking for an algorithm");
    for (int i = 0; i < count; ++i) {
      if (results[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS) {
        candidates_.push_back(results[static_cast<std::size_t>(i)].algo);
      }
    }
  }

  const CublasLt& lt_;
  cublasLtMatmulDesc_t desc_ = nullptr;
  cublasLtMatrixLayout_t first_ = nullptr, second_ = nullptr, addend_ = nullptr, result_ = nullptr;
  std::vector<cublasLtMatmulAlgo_t> candidates_;  // none: the library has no kernel for the case
  std::size_t chosen_ = 0;
};

}  // namespace cuda

class GemmPlans {
 public:
  GemmPlans() { cuda::check_cublaslt(cuda::cublaslt().create(&handle_), "starting the library"); }
  ~GemmPlans() { (void)cuda::cublaslt().destroy(handle_); }
  GemmPlans(const GemmPlans&) = delete;
  GemmPlans& operator=(const GemmPlans&) = delete;

  cublasLtHandle_t handle() const { return handle_; }

  // `is_new`: the plan was made by this call.
  cuda::Plan& of(const cuda::Gemm& g, int candidates, std::int64_t& made, bool& is_new) {
    const cuda::Key key = cuda::key_of(g);
    const auto found = plans_.find(key);
    is_new = found == plans_.end();
    if (!is_new) {
      return *found->second;
    }
    constexpr std::size_t kMost = 4096;  // prompts of every length: a shape each
    if (plans_.size() >= kMost) {
      plans_.clear();
    }
    ++made;
    return *plans_.emplace(key, std::make_unique<cuda::Plan>(handle_, g, candidates)).first->second;
  }

 private:
  cublasLtHandle_t handle_ = nullptr;
  std::map<cuda::Key, std::unique_ptr<cuda::Plan>> plans_;
};

namespace cuda {

void gemm(Context& ctx, const Gemm& product, std::byte* workspace) {
  if (product.bias != nullptr && (product.in != product.out || product.in == DType::kF64)) {
    gemm_plain(product);
    return;
  }
  CudaState& now = state(ctx);
  if (now.gemm == nullptr) {
    now.gemm = std::make_shared<GemmPlans>();
  }
  constexpr int kTuned = 8;
  const bool tunes = ctx.tune_products && !is_recording();
  bool is_new = false;
  Plan& plan = now.gemm->of(product, tunes ? kTuned : 1, now.plans, is_new);
  if (plan.found()) {
    if (is_new && tunes) {
      const Tensor result =
          ctx.allocate(DType::kU8, {product.m * product.d_stride * size_of(product.out)}, Segment::kWorkspace);
      plan.tune(now.gemm->handle(), product, result.address(), workspace);
    }
    plan.run(now.gemm->handle(), product, workspace);
  } else {
    gemm_plain(product);
  }
}

}  // namespace cuda
}  // namespace caravan::ops

#include "caravan/ops/cuda/cublaslt.h"

#include <dlfcn.h>

#include "caravan/base/error.h"

namespace caravan::ops::cuda {
namespace {

constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};

void* open_library() {
  for (const char* name : kNames) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) {
      return library;
    }
  }
  throw UnsupportedError(std::string("products on a GPU need NVIDIA's cuBLAS, and ") + kNames[0] +
                         " was not found; install cuBLAS 13 or name its folder in LD_LIBRARY_PATH");
}

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) {
    throw UnsupportedError(std::string("the cuBLASLt found here has no function ") + name + "; install cuBLAS 13");
  }
}

CublasLt load() {
  void* const library = open_library();
  CublasLt found{};
  find(library, "cublasLtCreate", found.create);
  find(library, "cublasLtDestroy", found.destroy);
  find(library, "cublasLtMatmul", found.matmul);
  find(library, "cublasLtMatmulAlgoGetHeuristic", found.heuristic);
  find(library, "cublasLtMatmulDescCreate", found.desc_create);
  find(library, "cublasLtMatmulDescDestroy", found.desc_destroy);
  find(library, "cublasLtMatmulDescSetAttribute", found.desc_set);
  find(library, "cublasLtMatrixLayoutCreate", found.layout_create);
  find(library, "cublasLtMatrixLayoutDestroy", found.layout_destroy);
  find(library, "cublasLtMatmulPreferenceCreate", found.preference_create);
  find(library, "cublasLtMatmulPreferenceDestroy", found.preference_destroy);
  find(library, "cublasLtMatmulPreferenceSetAttribute", found.preference_set);
  find(library, "cublasLtGetVersion", found.version);
  return found;
}

const char* in_words(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "the library could not be initialised";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "the GPU has no memory left for the library";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an argument is not allowed";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "the GPU lacks what was asked for";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "the GPU failed while computing";
    case CUBLAS_STATUS_INTERNAL_ERROR:
      return "an internal error";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "the library has no kernel for it";
    default:
      return "an unknown status";
  }
}

}  // namespace

const CublasLt& cublaslt() {
  // A table of function addresses: the same for everybody, and never changed.
  static const CublasLt loaded = load();
  return loaded;
}

void check_cublaslt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw DeviceError(std::string("cuBLASLt: ") + what + ": " + in_words(status));
  }
}

}  // namespace caravan::ops::cuda

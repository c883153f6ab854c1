// cuBLASLt, loaded when the first product asks for it: the program starts on machines that do not have it.
#pragma once

#include <cublasLt.h>

#include <string>

namespace caravan::ops::cuda {

// The functions that are called, as the library's header declares them.
struct CublasLt {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtGetVersion) version;
};

// Throws UnsupportedError when the library is not there or lacks a function.
const CublasLt& cublaslt();

// Throws Error "cuBLASLt: <what>: <status in words>" unless `status` is success.
void check_cublaslt(cublasStatus_t status, const char* what);

}  // namespace caravan::ops::cuda

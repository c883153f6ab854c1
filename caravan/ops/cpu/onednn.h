// oneDNN as this backend uses it: memory descriptors of our tensors, threads, errors.
#pragma once

#include <functional>
#include <oneapi/dnnl/dnnl.hpp>

#include "caravan/ops/context.h"

namespace caravan::ops::cpu {

// The processor engine.  Before the first one is made, oneDNN is told the level that usable_isa() gives, so that
// CARAVAN_MAX_ISA holds for it too.  That setting belongs to the process, not to a context: oneDNN keeps it for good,
// and a context whose `isa` was lowered afterwards still computes at the process's level inside oneDNN.
dnnl::engine make_engine();

dnnl::memory::data_type onednn_type(DType dtype);

// A row-major matrix whose rows stand `stride` elements apart.
dnnl::memory::desc matrix_desc(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t stride);

// Calls body with oneDNN's (OpenMP's) thread count set to the context's for the calling thread, which keeps two
// contexts in two threads apart, and turns dnnl::error into caravan::Error that names `what`.
void with_onednn(const Context& ctx, const char* what, const std::function<void()>& body);

}  // namespace caravan::ops::cpu

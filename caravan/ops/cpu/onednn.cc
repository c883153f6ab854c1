#include "caravan/ops/cpu/onednn.h"

#include <fmt/format.h>
#include <omp.h>

#include <mutex>

#include "caravan/base/error.h"

namespace caravan::ops::cpu {
namespace {

dnnl::cpu_isa onednn_isa(Isa isa) {
  switch (isa) {
    case Isa::kAmx:
      return dnnl::cpu_isa::avx512_core_amx;
    case Isa::kAvx512Bf16:
      return dnnl::cpu_isa::avx512_core_bf16;
    case Isa::kAvx512:
      return dnnl::cpu_isa::avx512_core;
    default:
      return dnnl::cpu_isa::avx2;
  }
}

// The calling thread's OpenMP thread count, put back at the end.
class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~ThreadCount() { omp_set_num_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

}  // namespace

dnnl::engine make_engine() {
  static std::once_flag told;
  // Refused only when somebody else in this process used oneDNN before: its choice then stands.
  std::call_once(told, [] { (void)dnnl::set_max_cpu_isa(onednn_isa(usable_isa())); });
  return {dnnl::engine::kind::cpu, 0};
}

dnnl::memory::data_type onednn_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return dnnl::memory::data_type::f32;
    case DType::kBF16:
      return dnnl::memory::data_type::bf16;
    default:
      throw ShapeError(fmt::format("oneDNN was given {} where products take f32 or bf16", to_string(dtype)));
  }
}

dnnl::memory::desc matrix_desc(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  return {dnnl::memory::dims{rows, columns}, onednn_type(dtype), dnnl::memory::dims{stride, 1}};
}

void with_onednn(const Context& ctx, const char* what, const std::function<void()>& body) {
  const ThreadCount threads(ctx.threads);
  try {
    body();
  } catch (const dnnl::error& error) {
    throw Error(
        fmt::format("{}: oneDNN refused with status {} ({})", what, static_cast<int>(error.status), error.what()));
  }
}

}  // namespace caravan::ops::cpu

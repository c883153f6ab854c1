// What devices may be, on emulated ones: several, without code for them, with little shared memory.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <thread>

#include "caravan/base/error.h"
#include "caravan/ops/attention.h"
#include "caravan/ops/elementwise.h"
#include "caravan/tensor/cuda_memory.h"
#include "tests/ops/inputs.h"

namespace caravan::ops::testing {
namespace {

class Setting {
 public:
  Setting(const char* variable, const char* value) : variable_(variable) { setenv(variable, value, 1); }
  ~Setting() { unsetenv(variable_); }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  const char* variable_;
};

Context context(int device) {
  return make_context({.backend = Backend::kCuda, .memory_capacity = std::int64_t{1} << 24, .cuda_device = device});
}

int device_of_thread() {
  int device = -1;
  EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
  return device;
}

TEST(Device, AThreadWorksOnTheDeviceOfItsContext) {
  const Setting two("CARAVAN_EMULATION_DEVICES", "2");
  Context second = context(1);
  const Tensor there = from_doubles(second, DType::kF32, {4}, {1, 2, 3, 4});
  std::thread([&] {
    EXPECT_EQ(device_of_thread(), 0);
    zero(second, there);
    EXPECT_EQ(device_of_thread(), 1);
    Context first = context(0);
    zero(first, first.allocate(DType::kF32, {4}));
    EXPECT_EQ(device_of_thread(), 0);
    zero(second, there);
    EXPECT_EQ(device_of_thread(), 1);
  }).join();
  EXPECT_EQ(to_doubles(there), (std::vector<double>{0, 0, 0, 0}));
}

TEST(Device, AskingWhetherADeviceServesChangesNothing) {
  const Setting two("CARAVAN_EMULATION_DEVICES", "2");
  cuda_memory::use(0);
  EXPECT_EQ(cuda_memory::refusal(1), "");
  EXPECT_EQ(device_of_thread(), 0);
  EXPECT_THROW(cuda_memory::use(2), DeviceError);
}

TEST(Device, OneThatNoKernelWasCompiledForIsRefused) {
  const Setting without("CARAVAN_EMULATION_WITHOUT_CODE", "1");
  EXPECT_EQ(cuda_memory::refusal(0),
            "cuda:0 (emulated device) has the unsupported architecture 9.0, and this program was built for emulated; "
            "build it with -DCMAKE_CUDA_ARCHITECTURES=90, or run with --device cpu");
  EXPECT_THROW(context(0), UnsupportedError);
}

TEST(Device, HeadsThatNoTileHoldsAreAnErrorThatSaysSo) {
  const Setting little("CARAVAN_EMULATION_SHARED_BYTES", "101376");
  Context ctx = context(0);
  const Maker make{ctx, DType::kF64, DType::kF64};
  const HeadShape heads{1, 1, 400};
  const Tensor query = make.input("query", 2, 400, 1).view;
  const Tensor out = make.output(DType::kF64, 2, 400).view;
  try {
    attention(ctx, out, Tensor(), query, query, query, heads, {{0, 2, 0, 2, 0}}, 1);
    FAIL() << "nothing was thrown";
  } catch (const UnsupportedError& error) {
    EXPECT_EQ(std::string(error.what()),
              "attention with 400 elements a head takes 103232 bytes of shared memory a block on this GPU, which gives "
              "101376; run with --device cpu, or in f32");
  }
}

// Why cuDNN did not take the backward of two causal squares.
std::string refusal_of_cudnn(const std::vector<AttentionRange>& ranges) {
  Context ctx = context(0);
  std::string refusal;
  ctx.on_choice = [&](const Choice& choice) {
    for (const std::string& one : choice.refusals) {
      refusal = one.starts_with("cudnn: ") ? one : refusal;
    }
  };
  const Maker make{ctx, DType::kBF16, DType::kBF16};
  const HeadShape heads{1, 1, 64};
  const Tensor x = make.input("x", 8, 64, 1).view;
  const auto result = [&] { return make.output(DType::kBF16, 8, 64).view; };
  const Tensor lse = make.output(DType::kF32, 8, 1).view;
  attention_grad(ctx, result(), result(), result(), x, x, x, x, x, lse, heads, ranges, 1);
  return refusal;
}

TEST(Device, CudnnAddsNoGradientsOfSharedKeys) {
  EXPECT_EQ(refusal_of_cudnn({{0, 4, 0, 4, 0}, {4, 8, 3, 7, 0}}), "cudnn: two ranges have the same keys");
  // Else it is asked; here it is not installed.
  EXPECT_EQ(refusal_of_cudnn({{0, 4, 0, 4, 0}, {4, 8, 4, 8, 0}}).find("ranges"), std::string::npos);
}

}  // namespace
}  // namespace caravan::ops::testing

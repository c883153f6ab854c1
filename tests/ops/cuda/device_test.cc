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

}  // namespace
}  // namespace caravan::ops::testing

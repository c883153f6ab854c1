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
  synchronize(second);  // before another thread has it
  std::thread([&] {
    EXPECT_EQ(device_of_thread(), 0);
    zero(second, there);
    EXPECT_EQ(device_of_thread(), 1);
    Context first = context(0);
    zero(first, first.allocate(DType::kF32, {4}));
    EXPECT_EQ(device_of_thread(), 0);
    zero(second, there);
    EXPECT_EQ(device_of_thread(), 1);
    synchronize(second);
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

Context dry_run(int device) {
  return make_context({.backend = Backend::kCuda, .dry_run = true, .cuda_device = device});
}

// The gradients of causal sequences of these lengths, as a dry run makes them: which implementation, and the bytes of
// its scratch.
struct Tried {
  std::string implementation;
  std::int64_t workspace = 0;
};

Tried try_gradients(Context ctx, const std::vector<std::int64_t>& lengths, const HeadShape& heads) {
  std::vector<AttentionRange> ranges;
  std::int64_t rows = 0;
  for (const std::int64_t length : lengths) {
    ranges.push_back({rows, rows + length, rows, rows + length, 0});
    rows += length;
  }
  Tried tried;
  ctx.on_choice = [&](const Choice& choice) { tried.implementation = choice.implementation; };
  const Tensor wide = ctx.allocate(DType::kBF16, {rows, heads.heads * heads.head_dim});
  const Tensor narrow = ctx.allocate(DType::kBF16, {rows, heads.kv_heads * heads.head_dim});
  const auto like = [&](const Tensor& one) { return ctx.allocate(one.dtype(), one.shape()); };
  const Tensor lse = ctx.allocate(DType::kF32, {rows, heads.heads});
  attention_grad(ctx, like(wide), like(narrow), like(narrow), wide, wide, narrow, narrow, wide, lse, heads, ranges, 1);
  tried.workspace = ctx.allocator->use().segments[static_cast<std::size_t>(Segment::kWorkspace)].peak_bytes;
  return tried;
}

// An emulated device has no cuDNN; one that is not there is taken to have it.
TEST(Device, ADryRunAsksTheDeviceThatItStandsForAndNoOther) {
  const HeadShape heads{1, 1, 64};
  EXPECT_NE(try_gradients(dry_run(0), {8}, heads).implementation, "cudnn");
  EXPECT_EQ(try_gradients(dry_run(7), {8}, heads).implementation, "cudnn");
  const Setting several("CARAVAN_EMULATION_DEVICES", "8");
  EXPECT_NE(try_gradients(dry_run(7), {8}, heads).implementation, "cudnn");
  const Setting with_cudnn("CARAVAN_EMULATION_CUDNN", "1");
  cuda_memory::use(0);
  EXPECT_EQ(try_gradients(dry_run(7), {8}, heads).implementation, "cudnn");
  EXPECT_EQ(device_of_thread(), 7);
}

// Five sequences of 4,096 rows and 28 heads are what cuDNN's scratch may hold.
TEST(Device, BatchesOfUnlikeSequencesStayBelowTheLimitOfScratch) {
  const Setting none("CARAVAN_EMULATION_DEVICES", "0");
  const HeadShape heads{28, 4, 128};
  const Tried one = try_gradients(dry_run(0), {4096}, heads);
  EXPECT_EQ(one.implementation, "cudnn");
  std::vector<std::int64_t> lengths = {4096, 4000, 3900, 3800, 3700};
  EXPECT_LT(try_gradients(dry_run(0), lengths, heads).workspace, 5 * one.workspace + 4096);
  lengths.insert(lengths.end(), {3600, 3500, 3400});
  EXPECT_LT(try_gradients(dry_run(0), lengths, heads).workspace, 5 * one.workspace + 4096);
}

TEST(Device, CudnnAddsNoGradientsOfSharedKeys) {
  EXPECT_EQ(refusal_of_cudnn({{0, 4, 0, 4, 0}, {4, 8, 3, 7, 0}}), "cudnn: two ranges have the same keys");
  // Else it is asked; here it is not installed.
  EXPECT_EQ(refusal_of_cudnn({{0, 4, 0, 4, 0}, {4, 8, 4, 8, 0}}).find("ranges"), std::string::npos);
}

}  // namespace
}  // namespace caravan::ops::testing

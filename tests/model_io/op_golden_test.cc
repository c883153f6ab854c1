// Single ops against transformers and torch (tests/golden/ops): what a whole model's tolerance is too wide to see.
#include <gtest/gtest.h>

#include <cmath>

#include "caravan/checkpoint/safetensors.h"
#include "caravan/ops/rms_norm.h"
#include "caravan/ops/rope.h"
#include "caravan/ops/swiglu.h"
#include "caravan/tensor/copy.h"
#include "tests/support/isa.h"
#include "tests/support/source_folder.h"

namespace caravan::ops {
namespace {

class OpGolden : public testing::TestWithParam<Backend> {
 protected:
  OpGolden() : ctx(make_context({.backend = GetParam(), .dry_run = false, .threads = 2, .memory_capacity = 1 << 24})) {}

  void SetUp() override { CARAVAN_SKIP_WITHOUT_ISA(); }

  static checkpoint::SafetensorsFile open(const char* name) {
    return checkpoint::SafetensorsFile::open(test::source_folder() / "tests" / "golden" / "ops" / name);
  }

  Tensor load(const checkpoint::SafetensorsFile& file, const std::string& name) {
    const checkpoint::TensorEntry* entry = file.find(name);
    if (entry == nullptr) {
      throw std::runtime_error("no golden " + name);
    }
    const Tensor tensor = ctx.allocate(*entry->dtype, Shape(entry->shape));
    copy_from_host(tensor, file.bytes(*entry));
    return tensor;
  }

  Tensor like(const Tensor& x) { return ctx.allocate(x.dtype(), x.shape()); }

  Context ctx;
};

INSTANTIATE_TEST_SUITE_P(Backends, OpGolden, testing::Values(Backend::kRef, Backend::kCpu),
                         [](const auto& info) { return std::string(to_string(info.param)); });

std::int64_t unequal(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = to_doubles(a);
  const std::vector<double> y = to_doubles(b);
  std::int64_t count = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    count += x[i] == y[i] ? 0 : 1;
  }
  return count;
}

// Largest difference in units of the last place of `b`.
double worst_ulps(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = to_doubles(a);
  const std::vector<double> y = to_doubles(b);
  const int bits = significand_bits(b.dtype());
  double worst = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double ulp = std::ldexp(1.0, std::ilogb(std::max(std::abs(y[i]), 1e-30)) - bits + 1);
    worst = std::max(worst, std::abs(x[i] - y[i]) / ulp);
  }
  return worst;
}

// In bf16 the two roundings give other bits, and ours are each one's own: a wrong order is seen at once.  torch's f32
// sum of squares may move a normalised value across a rounding border, which is allowed for one element in a hundred.
TEST_P(OpGolden, RmsNormRoundsAsEachConventionDoes) {
  const checkpoint::SafetensorsFile file = open("rms_norm.safetensors");
  const Tensor x = load(file, "bf16.x");
  const Tensor w = load(file, "bf16.weight");
  const Tensor hugging_face = like(x);
  const Tensor fused = like(x);
  rms_norm(ctx, hugging_face, {}, x, w, 1e-5, NormRounding::kHuggingFace);
  rms_norm(ctx, fused, {}, x, w, 1e-5, NormRounding::kFused);
  const std::int64_t allowed = x.elements() / 100;
  EXPECT_LE(unequal(hugging_face, load(file, "bf16.hugging_face")), allowed);
  EXPECT_LE(unequal(fused, load(file, "bf16.fused")), allowed);
  EXPECT_GE(unequal(hugging_face, load(file, "bf16.fused")), 10 * allowed);
  EXPECT_LE(worst_ulps(hugging_face, load(file, "bf16.hugging_face")), 1.0);
}

TEST_P(OpGolden, RmsNormInF32AgreesToRounding) {
  const checkpoint::SafetensorsFile file = open("rms_norm.safetensors");
  const Tensor x = load(file, "f32.x");
  const Tensor y = like(x);
  rms_norm(ctx, y, {}, x, load(file, "f32.weight"), 1e-5, NormRounding::kHuggingFace);
  EXPECT_LE(worst_ulps(y, load(file, "f32.hugging_face")), 4.0);
}

// Positions are in the table: an offset or another pairing cannot pass, though a model's attention would forgive the
// first.
TEST_P(OpGolden, RopeTurnsByPositionAndPairing) {
  const checkpoint::SafetensorsFile file = open("rope.safetensors");
  for (const std::string dtype : {"f32", "bf16"}) {
    const Tensor x = load(file, dtype + ".x");
    const Tensor positions = load(file, "positions");
    const Tensor flat = load(file, "frequencies");
    const Tensor kind = ctx.allocate(DType::kI32, {x.rows()});
    copy_from_host(kind, std::vector<std::byte>(static_cast<std::size_t>(kind.bytes())));
    const Tensor cos = ctx.allocate(DType::kF32, {x.rows(), flat.rows()});
    const Tensor sin = ctx.allocate(DType::kF32, {x.rows(), flat.rows()});
    rope_tables(ctx, cos, sin, positions, flat.reshape({1, flat.rows()}), kind, 1.0, x.dtype());
    const Tensor half = like(x);
    rope(ctx, half, x, cos, sin, RopePairing::kRotateHalf);
    const std::vector<double> expected = to_doubles(load(file, dtype + ".rotate_half"));
    const std::vector<double> found = to_doubles(half);
    // transformers rounds both products and their sum in bf16, we round once: 1.5 roundings of each product's size
    // apart.
    const double unit = std::ldexp(1.0, -significand_bits(x.dtype()));
    double scale = 0.0;
    for (const double value : to_doubles(x)) {
      scale = std::max(scale, std::abs(value));
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found[i], expected[i], 6.0 * unit * scale) << dtype << " " << i;
    }
    if (dtype == "f32") {
      const Tensor interleaved = like(x);
      rope(ctx, interleaved, x, cos, sin, RopePairing::kInterleaved);
      const std::vector<double> turned = to_doubles(interleaved);
      const std::vector<double> wanted = to_doubles(load(file, "f32.interleaved"));
      for (std::size_t i = 0; i < turned.size(); ++i) {
        ASSERT_NEAR(turned[i], wanted[i], 6.0 * unit * scale) << i;
      }
    }
  }
}

TEST_P(OpGolden, SwigluRoundsOnce) {
  const checkpoint::SafetensorsFile file = open("swiglu.safetensors");
  for (const std::string dtype : {"f32", "bf16"}) {
    const Tensor gate = load(file, dtype + ".gate");
    const Tensor up = load(file, dtype + ".up");
    const Tensor gate_up = ctx.allocate(gate.dtype(), {gate.rows(), 2 * gate.columns()});
    std::vector<std::byte> bytes(static_cast<std::size_t>(gate.bytes()));
    for (std::int64_t row = 0; row < gate.rows(); ++row) {
      const std::int64_t columns = gate.columns();
      const std::span<std::byte> one(bytes.data(), static_cast<std::size_t>(columns * size_of(gate.dtype())));
      copy_to_host(one, gate.row_range(row, row + 1));
      copy_from_host(gate_up.row_range(row, row + 1).column_range(0, columns), one);
      copy_to_host(one, up.row_range(row, row + 1));
      copy_from_host(gate_up.row_range(row, row + 1).column_range(columns, 2 * columns), one);
    }
    const Tensor y = like(gate);
    swiglu(ctx, y, gate_up);
    EXPECT_LE(worst_ulps(y, load(file, dtype + ".fused")), dtype == "f32" ? 4.0 : 1.0) << dtype;
    EXPECT_LE(worst_ulps(y, load(file, dtype + ".hugging_face")), dtype == "f32" ? 4.0 : 2.0) << dtype;
  }
}

}  // namespace
}  // namespace caravan::ops

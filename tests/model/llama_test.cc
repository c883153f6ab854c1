#include "caravan/model/llama.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>

#include "caravan/base/error.h"
#include "caravan/model/presets.h"
#include "caravan/tensor/copy.h"
#include "tests/support/device.h"

namespace caravan::model {
namespace {

using Ids = std::vector<std::int32_t>;

// A context, initial weights and the model over them.
struct Fixture {
  ops::Context ops;
  autograd::WeightStore store;
  Llama llama;

  Fixture(const LlamaConfig& config, ops::Backend backend, DType dtype, bool dry_run = false, int threads = 2)
      : ops(ops::make_context({.backend = backend,
                               .dry_run = dry_run,
                               .threads = threads,
                               .memory_capacity = dry_run ? 0 : test::memory_capacity()})),
        store(ops, parameter_specs(config), dtype),
        llama(config, store) {
    if (!dry_run) {
      autograd::initialize(ops, store, 7);
    }
  }

  Tensor upload(const Ids& ids) {
    const Tensor tensor = ops.allocate(DType::kI32, {static_cast<std::int64_t>(ids.size())});
    copy_from_host(tensor, std::as_bytes(std::span(ids)));
    return tensor;
  }

  // Hidden states after the final norm.
  std::vector<double> run(const SequenceLayout& layout, const Ids& ids) {
    autograd::Context pass(ops, layout);
    return to_doubles(llama.forward(pass, upload(ids)).tensor);
  }
};

LlamaConfig config_with_contrast() {
  LlamaConfig config = preset("tiny");
  config.initializer_range = 0.3;  // far from the flat attention of small weights
  return config;
}

Ids some_ids(std::int64_t count, int salt) {
  Ids ids;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<std::int32_t>((i * 37 + salt * 11 + i * i) % 131));
  }
  return ids;
}

struct Case {
  ops::Backend backend;
  DType dtype;
};

std::string case_name(const testing::TestParamInfo<Case>& info) {
  return std::string(ops::to_string(info.param.backend)) + "_" + to_string(info.param.dtype);
}

class LlamaModel : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(All, LlamaModel,
                         testing::Values(Case{ops::Backend::kRef, DType::kF64}, Case{ops::Backend::kRef, DType::kF32},
                                         Case{test::fast_backend(), DType::kF32},
                                         Case{test::fast_backend(), DType::kBF16}),
                         case_name);

// Rows of a packed batch see their own sequence alone.  On the reference every row is computed by itself, so the bits
// are the same; a GEMM may order its sums by its shape, so elsewhere a few roundings of the dtype may differ.
TEST_P(LlamaModel, GivesPackedSequencesTheirSeparateResults) {
  Fixture model(config_with_contrast(), GetParam().backend, GetParam().dtype);
  const std::vector<std::int64_t> lengths = {5, 1, 33, 18};
  Ids packed;
  std::vector<double> separate;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const Ids ids = some_ids(lengths[i], static_cast<int>(i));
    packed.insert(packed.end(), ids.begin(), ids.end());
    const std::vector<double> one = model.run(pack(std::vector<std::int64_t>{lengths[i]}), ids);
    separate.insert(separate.end(), one.begin(), one.end());
  }
  const std::vector<double> together = model.run(pack(lengths), packed);
  ASSERT_EQ(together.size(), separate.size());
  const double unit = std::ldexp(1.0, -significand_bits(GetParam().dtype));
  const double tolerance = GetParam().backend == ops::Backend::kRef ? 0.0 : 64.0 * unit;
  for (std::size_t i = 0; i < together.size(); ++i) {
    ASSERT_NEAR(together[i], separate[i], tolerance * std::max(1.0, std::abs(separate[i]))) << i;
  }
}

TEST_P(LlamaModel, IsNotTouchedByPoisonInPaddingRows) {
  Fixture model(config_with_contrast(), GetParam().backend, GetParam().dtype);
  // Padding between and after the sequences.
  SequenceLayout layout;
  layout.sequences = {{2, 9, 0}, {13, 20, 0}};
  layout.rows = 40;
  Ids ids(40, -1);
  const Ids first = some_ids(9, 1);
  const Ids second = some_ids(20, 2);
  std::copy(first.begin(), first.end(), ids.begin() + 2);
  std::copy(second.begin(), second.end(), ids.begin() + 13);

  const auto run = [&](bool poison) {
    autograd::Context pass(model.ops, layout);
    Value x = model.llama.forward_unit(pass, 0, {model.upload(ids)});
    for (int unit = 1; unit < model.llama.units(); ++unit) {
      for (std::int64_t row = 0; poison && row < layout.rows; ++row) {
        if (ids[static_cast<std::size_t>(row)] < 0) {
          const Tensor target = x.tensor.row_range(row, row + 1);
          const std::vector<float> nan(32, std::numeric_limits<float>::quiet_NaN());
          std::vector<std::byte> bytes(static_cast<std::size_t>(target.bytes()));
          convert_elements(target.dtype(), bytes.data(), DType::kF32, std::as_bytes(std::span(nan)).data(), 32);
          copy_from_host(target, bytes);
        }
      }
      x = model.llama.forward_unit(pass, unit, x);
    }
    return to_doubles(x.tensor);
  };
  const std::vector<double> clean = run(false);
  const std::vector<double> poisoned = run(true);
  for (std::int64_t row = 0; row < layout.rows; ++row) {
    if (ids[static_cast<std::size_t>(row)] < 0) {
      continue;
    }
    for (std::size_t i = 0; i < 32; ++i) {
      const std::size_t at = static_cast<std::size_t>(row) * 32 + i;
      ASSERT_EQ(clean[at], poisoned[at]) << "row " << row;
    }
  }
}

TEST_P(LlamaModel, UsesTheSameMemoryInADryRun) {
  const auto use = [&](bool dry_run) {
    Fixture model(config_with_contrast(), GetParam().backend, GetParam().dtype, dry_run);
    const SequenceLayout layout = pack(std::vector<std::int64_t>{100, 27});
    autograd::Context pass(model.ops, layout);
    const Value hidden = model.llama.forward(pass, model.upload(some_ids(127, 3)));
    model.llama.logits(pass, hidden.tensor);
    model.llama.token_losses(pass, hidden, model.upload(Ids(127, 5)));
    return model.ops.allocator->use();
  };
  const MemoryUse real = use(false);
  const MemoryUse planned = use(true);
  EXPECT_EQ(real.peak_bytes, planned.peak_bytes);
  EXPECT_EQ(real.high_water, planned.high_water);
  for (int i = 0; i < kSegmentCount; ++i) {
    EXPECT_EQ(real.segments[static_cast<std::size_t>(i)].peak_bytes,
              planned.segments[static_cast<std::size_t>(i)].peak_bytes)
        << to_string(static_cast<Segment>(i));
  }
  EXPECT_GT(real.segments[static_cast<std::size_t>(Segment::kActivations)].peak_bytes, 0);
}

// Nothing in a forward pass grows with the square of the tokens.
TEST(LlamaMemory, GrowsLinearlyWithTokens) {
  LlamaConfig config = preset("tiny");
  config.rope.max_position_embeddings = 8192;
  std::vector<std::int64_t> water;
  for (const std::int64_t tokens : {2048, 4096, 8192}) {
    Fixture model(config, test::fast_backend(), DType::kF32);
    const std::int64_t weights = model.ops.allocator->use().high_water;
    const SequenceLayout layout = pack(std::vector<std::int64_t>{tokens});
    autograd::Context pass(model.ops, layout);
    const Value hidden = model.llama.forward(pass, model.upload(some_ids(tokens, 1)));
    model.llama.token_losses(pass, hidden, model.upload(Ids(static_cast<std::size_t>(tokens), 5)));
    water.push_back(model.ops.allocator->use().high_water - weights);
  }
  const std::int64_t first = water[1] - water[0];
  const std::int64_t second = water[2] - water[1];
  EXPECT_GT(first, 0);
  // 4096 more tokens may cost twice what 2048 more did, and a little rounding to whole blocks; a quadratic term would
  // make it four times.
  EXPECT_LE(second, 2 * first + 64 * 1024);
  EXPECT_GE(second, 2 * first - 64 * 1024);
}

TEST(LlamaModelOnce, RotatesInterleavedWeightsLikeHalves) {
  // The same function: rows of q and k reordered and the pairing changed with them.
  const LlamaConfig half = config_with_contrast();
  LlamaConfig interleaved = half;
  interleaved.rope_pairing = ops::RopePairing::kInterleaved;
  Fixture a(half, ops::Backend::kRef, DType::kF64);
  Fixture b(interleaved, ops::Backend::kRef, DType::kF64);
  const std::int64_t d = half.head_dim;
  for (autograd::Parameter& parameter : b.store.parameters()) {
    for (const ParamPart& part : parameter.spec.parts) {
      const std::string& name = part.name;
      if (name.find("q_proj") == std::string::npos && name.find("k_proj") == std::string::npos) {
        continue;
      }
      const Tensor rows = autograd::part_rows(parameter.tensor(), part);
      std::vector<std::byte> original(static_cast<std::size_t>(rows.bytes()));
      copy_to_host(original, rows);
      const auto row_bytes = static_cast<std::size_t>(rows.bytes() / rows.rows());
      for (std::int64_t row = 0; row < rows.rows(); ++row) {
        const std::int64_t inside = row % d;
        const std::int64_t source = row - inside + (inside % 2) * (d / 2) + inside / 2;
        copy_from_host(rows.row_range(row, row + 1),
                       std::span(original).subspan(static_cast<std::size_t>(source) * row_bytes, row_bytes));
      }
    }
    parameter.weight.changed();
  }
  const SequenceLayout layout = pack(std::vector<std::int64_t>{40});
  const std::vector<double> x = a.run(layout, some_ids(40, 1));
  const std::vector<double> y = b.run(layout, some_ids(40, 1));
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_NEAR(x[i], y[i], 1e-12);
  }
}

TEST(LlamaModelOnce, MakesNoNewPlansAfterTheFirstPass) {
  Fixture model(config_with_contrast(), test::fast_backend(), DType::kF32);
  const SequenceLayout layout = pack(std::vector<std::int64_t>{30, 12});
  model.run(layout, some_ids(42, 1));
  const std::int64_t after_first = ops::plans_made(model.ops);
  EXPECT_GT(after_first, 0);
  model.run(layout, some_ids(42, 2));
  EXPECT_EQ(ops::plans_made(model.ops), after_first);
}

TEST(LlamaModelOnce, InitialValuesDoNotDependOnFusionOrDtype) {
  const LlamaConfig config = config_with_contrast();
  Fixture f32(config, ops::Backend::kRef, DType::kF32);
  Fixture f64(config, ops::Backend::kRef, DType::kF64);
  for (autograd::Parameter& parameter : f32.store.parameters()) {
    EXPECT_EQ(to_doubles(parameter.tensor()), to_doubles(f64.store.at(parameter.spec.name).tensor()))
        << parameter.spec.name;
  }
}

TEST(LlamaModelOnce, RefusesAUnitThatIsNotThere) {
  Fixture model(config_with_contrast(), ops::Backend::kRef, DType::kF32);
  const SequenceLayout layout = pack(std::vector<std::int64_t>{1});
  autograd::Context pass(model.ops, layout);
  EXPECT_THROW(model.llama.forward_unit(pass, 4, {model.upload({1})}), ShapeError);
}

}  // namespace
}  // namespace caravan::model

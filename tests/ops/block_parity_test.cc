// Products with weights in blocks on the cpu backend, at the level of instructions that CARAVAN_MAX_ISA names, against
// sums in double of what quant/dequantize makes of the blocks.
//
// With few tokens activations become whole numbers: of 32 with the largest magnitude a, x is within half a step, a / 254,
// of step * code, and a product with weights w within that times the sum of |w|.  With many, weights and activations are
// rounded to the tile's dtype.  Everything else is f32 arithmetic on terms whose magnitude, before an offset cancels any of
// it, is at most `raw` (see raw_magnitude) times |x|.
#include "caravan/base/error.h"
#include "caravan/quant/dequantize.h"
#include "caravan/quant/quantize.h"
#include "tests/ops/parity.h"
#include "tests/support/lcg.h"

namespace caravan::ops::testing {
namespace {

using quant::BlockMatrix;
using quant::BlockType;

constexpr std::int64_t kFewTokens = 24;  // up to which the codes themselves are multiplied
constexpr double kLargestScale = 0.01;

struct TypeCase {
  BlockType type;
  std::vector<int> scales_at;  // bytes of a block where an f16 scale or offset stands
  double raw;                  // magnitude of a term over kLargestScale
};

// raw: the largest code times the largest scale of a group, and the largest offset: Q4_1 15 + 1, Q4_K 15 * 63 + 63, Q6_K
// 32 * 128, ...
const std::vector<TypeCase> kTypes = {
    {BlockType::kQ40, {0}, 15 + 8},
    {BlockType::kQ41, {0, 2}, 15 + 1},
    {BlockType::kQ50, {0}, 31 + 16},
    {BlockType::kQ51, {0, 2}, 31 + 1},
    {BlockType::kQ80, {0}, 128},
    {BlockType::kQ2K, {80, 82}, 3 * 15 + 15},
    {BlockType::kQ3K, {108}, 4 * 32},
    {BlockType::kQ4K, {0, 2}, 15 * 63 + 63},
    {BlockType::kQ5K, {0, 2}, 31 * 63 + 63},
    {BlockType::kQ6K, {208}, 32 * 128},
    {BlockType::kF16, {0}, 1},
    {BlockType::kBF16, {}, 1},
    {BlockType::kF32, {}, 1},
    {BlockType::kF64, {}, 1},
};

const TypeCase& case_of(BlockType type) {
  return *std::ranges::find(kTypes, type, &TypeCase::type);
}

bool is_multiplied_as_codes(BlockType type) {
  return type == BlockType::kQ40 || type == BlockType::kQ41 || type == BlockType::kQ80 || type == BlockType::kQ4K ||
         type == BlockType::kQ6K;
}

// Blocks of any codes and scales of groups, with moderate scales of blocks; plain numbers in (-1, 1) times kLargestScale.
BlockMatrix random_blocks(BlockType type, std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  test::Lcg random(seed);
  const quant::TypeFacts& facts = quant::facts(type);
  const std::int64_t row_bytes = *quant::row_bytes(facts, columns);
  // One byte in front: blocks are aligned to nothing.
  const auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(rows * row_bytes + 1));
  std::byte* const first = bytes->data() + (facts.elements > 1 ? 1 : 0);
  if (facts.elements == 1) {
    std::vector<float> values(static_cast<std::size_t>(rows * columns));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(kLargestScale * (2 * random.uniform() - 1));
    }
    quant::quantize(type, values.data(), first, rows * columns);
  } else {
    for (std::int64_t i = 0; i < rows * row_bytes; ++i) {
      first[i] = std::byte(random.draw() & 255U);
    }
    for (std::int64_t at = 0; at < rows * row_bytes; at += facts.bytes) {
      for (const int scale_at : case_of(type).scales_at) {
        const Float16 scale(static_cast<float>(kLargestScale * (2 * random.uniform() - 1)));
        std::memcpy(first + at + scale_at, &scale.bits, sizeof scale.bits);
      }
    }
  }
  return {type, rows, columns, row_bytes, {first, static_cast<std::size_t>(rows * row_bytes)}, bytes};
}

struct Blocks {
  std::vector<BlockMatrix> pieces;
  std::vector<double> numbers;  // [rows, columns]
  double raw = 0;
  bool all_codes = true;  // none is multiplied as numbers
  bool fine = false;      // a tile of f32 is wanted

  Blocks(const std::vector<std::pair<BlockType, std::int64_t>>& rows, std::int64_t columns) {
    for (const auto& [type, count] : rows) {
      pieces.push_back(random_blocks(type, count, columns, pieces.size() + 1));
      std::vector<float> values(static_cast<std::size_t>(count * columns));
      quant::dequantize_rows(pieces.back(), 0, count, values.data(), 1);
      numbers.insert(numbers.end(), values.begin(), values.end());
      raw = std::max(raw, kLargestScale * case_of(type).raw);
      all_codes = all_codes && is_multiplied_as_codes(type);
      fine = fine || type == BlockType::kF16 || type == BlockType::kF32 || type == BlockType::kF64;
    }
  }

  std::int64_t rows() const { return static_cast<std::int64_t>(numbers.size()) / pieces.front().columns; }
};

// The largest distance of an activation from what its codes stand for: half a step, and what rounding adds to the scale
// (one rounding of a / 127, two of x * (127 / a)): 127 steps * 4 u.
std::vector<double> code_errors(const std::vector<double>& x, std::int64_t columns) {
  std::vector<double> errors(x.size());
  for (std::size_t row = 0; row < x.size(); row += static_cast<std::size_t>(columns)) {
    for (std::size_t g = row; g < row + static_cast<std::size_t>(columns); g += 32) {
      double largest = 0;
      for (std::size_t i = g; i < g + 32; ++i) {
        largest = std::max(largest, std::abs(x[i]));
      }
      std::fill_n(errors.begin() + static_cast<std::ptrdiff_t>(g), 32, largest / 127 * (0.5 + 127 * 4 * kU));
    }
  }
  return errors;
}

class BlockParity : public Parity {
 protected:
  // y, and how far it may be off before it is rounded.
  struct Expected {
    std::vector<double> y;
    Bound error;
  };

  Expected expected(const Blocks& w, const std::vector<double>& x, std::int64_t columns,
                    const std::vector<double>& bias, const std::vector<double>& residual) const {
    const std::int64_t tokens = static_cast<std::int64_t>(x.size()) / columns;
    const bool few = tokens <= kFewTokens;
    const bool bf16_tiles = !few && !w.fine && cpu_.isa >= Isa::kAvx512Bf16;
    const bool in_groups = few && columns % 32 == 0;  // rows of codes are
    const std::vector<double> coded = in_groups ? code_errors(x, columns) : std::vector<double>(x.size(), 0.0);
    // Two numbers rounded to bf16 before they are multiplied.
    const double rounding = bf16_tiles ? (1 + kUbf16) * (1 + kUbf16) - 1 : 0;
    // In both ways less than columns + 24 f32 roundings: sums, scales, the offset, bias, residual.
    const double arithmetic = gamma(static_cast<double>(columns) + 24);
    Expected result;
    std::int64_t first = 0;
    std::vector<bool> by_codes;
    for (const BlockMatrix& piece : w.pieces) {
      by_codes.insert(by_codes.end(), static_cast<std::size_t>(piece.rows), is_multiplied_as_codes(piece.type));
      first += piece.rows;
    }
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t o = 0; o < first; ++o) {
        double sum = 0;
        double error = 0;
        double magnitude = 0;
        for (std::int64_t i = 0; i < columns; ++i) {
          const double a = x[static_cast<std::size_t>(t * columns + i)];
          const double b = w.numbers[static_cast<std::size_t>(o * columns + i)];
          sum += a * b;
          magnitude += std::abs(a) * w.raw;
          error += (by_codes[static_cast<std::size_t>(o)] ? coded[static_cast<std::size_t>(t * columns + i)] : 0.0) *
                       std::abs(b) +
                   rounding * std::abs(a * b);
        }
        const double offset = bias.empty() ? 0.0 : bias[static_cast<std::size_t>(o)];
        const double before = residual.empty() ? 0.0 : residual[static_cast<std::size_t>(t * first + o)];
        result.y.push_back(sum + offset + before);
        // Flushed: AVX512_BF16 takes subnormal terms for zero.
        result.error.push_back(error + arithmetic * 1.01 * (2 * magnitude + std::abs(offset) + std::abs(before)) +
                               static_cast<double>(columns) * 0x1p-126);
      }
    }
    return result;
  }

  void check(const std::vector<std::pair<BlockType, std::int64_t>>& rows, const LinearCase& c) {
    const Blocks w(rows, c.in);
    SCOPED_TRACE(std::string(quant::facts(rows.front().first).name) + " tokens " + std::to_string(c.tokens) + " in " +
                 std::to_string(c.in) + " out " + std::to_string(w.rows()));
    const DType dtype = c.f32_output ? DType::kF32 : GetParam();
    const auto run_on = [&](Context& ctx, DType store, DType y_dtype) {
      const Maker make{ctx, GetParam(), store};
      const Maker of_y{ctx, dtype, y_dtype};
      const Window x = make.input("x", c.tokens, c.in, 1, c.strided);
      const Tensor bias = c.bias ? make.vector("bias", w.rows(), 4) : Tensor{};
      const Window residual =
          c.residual == Residual::kNone ? Window{} : of_y.input("residual", c.tokens, w.rows(), 4, c.strided);
      const Window y =
          c.residual == Residual::kAliasesY ? residual : make.output(y_dtype, c.tokens, w.rows(), c.strided);
      const std::vector<double> added = residual.view.defined() ? to_doubles(residual.view) : std::vector<double>{};
      linear(ctx, y.view, x.view, Weight::in_blocks(w.pieces, store), bias, residual.view);
      EXPECT_TRUE(gaps_untouched(y));
      return std::pair{to_doubles(y.view), expected(w, to_doubles(x.view), c.in,
                                                    bias.defined() ? to_doubles(bias) : std::vector<double>{}, added)};
    };
    const auto [got, bounds] = run_on(cpu_, GetParam(), dtype);
    expect_served_by("linear", true, GetParam() == DType::kF64 ? "ref" : "blocks");
    const auto [from_reference, exact] = run_on(ref_, GetParam(), dtype);
    // The reference sums in double, in this very order.
    expect_rounded(from_reference, dtype, exact.y);
    if (GetParam() != DType::kF64) {
      expect_within(got, dtype, bounds.y, bounds.error);
    }
  }
};

TEST_P(BlockParity, EveryTypeAgreesWithItsNumbers) {
  for (const TypeCase& one : kTypes) {
    for (const std::int64_t tokens : {1, 2, 3, 7, 24, 33}) {
      check({{one.type, 37}}, {.tokens = tokens, .in = 512, .out = 37});
    }
  }
}

TEST_P(BlockParity, RowsOfFewBlocksAndOddNumbersOfRows) {
  for (const BlockType type : {BlockType::kQ40, BlockType::kQ41, BlockType::kQ51, BlockType::kQ80}) {
    for (const std::int64_t out : {1, 2, 3, 5, 67}) {
      check({{type, out}}, {.tokens = 1, .in = 96, .out = out});
      check({{type, out}}, {.tokens = 5, .in = 32, .out = out});
      check({{type, out}}, {.tokens = 26, .in = 96, .out = out});
    }
  }
  for (const BlockType type : {BlockType::kF16, BlockType::kBF16, BlockType::kF32, BlockType::kF64}) {
    check({{type, 7}}, {.tokens = 1, .in = 131, .out = 7});
    check({{type, 7}}, {.tokens = 4, .in = 5, .out = 7});
    check({{type, 7}}, {.tokens = 27, .in = 131, .out = 7});
  }
}

TEST_P(BlockParity, SeveralTilesOfSeveralPieces) {
  // 1,540 rows of 768 numbers are more than one tile of either dtype.
  const std::vector<std::pair<BlockType, std::int64_t>> rows = {
      {BlockType::kQ4K, 700}, {BlockType::kQ6K, 333}, {BlockType::kQ5K, 7}, {BlockType::kQ80, 500}};
  check(rows, {.tokens = 1, .in = 768, .out = 1540});
  check(rows, {.tokens = 25, .in = 768, .out = 1540});
  check({{BlockType::kQ41, 70}, {BlockType::kF16, 50}}, {.tokens = 3, .in = 64, .out = 120});
  check({{BlockType::kQ41, 70}, {BlockType::kF16, 50}}, {.tokens = 30, .in = 64, .out = 120});
}

TEST_P(BlockParity, BiasResidualAndColumnRanges) {
  for (const std::int64_t tokens : {1, 6, 29}) {
    for (const Residual residual : {Residual::kNone, Residual::kSeparate, Residual::kAliasesY}) {
      for (const bool strided : {false, true}) {
        check({{BlockType::kQ41, 83}},
              {.tokens = tokens, .in = 192, .out = 83, .bias = true, .residual = residual, .strided = strided});
        check({{BlockType::kQ80, 83}},
              {.tokens = tokens, .in = 192, .out = 83, .residual = residual, .strided = strided});
        check({{BlockType::kF16, 83}},
              {.tokens = tokens, .in = 77, .out = 83, .residual = residual, .strided = strided});
        if (size_of(GetParam()) == 2) {
          check({{BlockType::kQ40, 83}},
                {.tokens = tokens, .in = 192, .out = 83, .residual = residual, .strided = strided, .f32_output = true});
        }
      }
    }
  }
}

TEST_P(BlockParity, ARowDependsOnItsTokenAlone) {
  const Blocks w({{BlockType::kQ4K, 40}, {BlockType::kQ80, 9}, {BlockType::kF16, 5}}, 256);
  const Weight weight = Weight::in_blocks(w.pieces, GetParam());
  const Tensor x = on_cpu().input("x", 7, 256, 1).view;
  const Tensor together = on_cpu().output(GetParam(), 7, w.rows()).view;
  linear(cpu_, together, x, weight);
  Context one_thread = cpu_;
  one_thread.threads = 1;
  for (std::int64_t t = 0; t < 7; ++t) {
    const Tensor alone = on_cpu().output(GetParam(), 1, w.rows()).view;
    linear(one_thread, alone, x.row_range(t, t + 1), weight);
    EXPECT_EQ(to_doubles(alone), to_doubles(together.row_range(t, t + 1))) << t;
  }
}

TEST_P(BlockParity, WhatIsNoNumberStaysInItsRow) {
  for (const BlockType type : {BlockType::kQ41, BlockType::kQ80, BlockType::kQ6K}) {
    for (const double bad : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
      for (const std::int64_t tokens : {2, 25}) {
        const Blocks w({{type, 10}}, 256);
        std::vector<double> values(static_cast<std::size_t>(tokens * 256), 0.5);
        values[256 + 77] = bad;
        const Tensor x = from_doubles(cpu_, GetParam(), {tokens, 256}, values);
        const Tensor y = on_cpu().output(GetParam(), tokens, 10).view;
        linear(cpu_, y, x, Weight::in_blocks(w.pieces, GetParam()));
        const std::vector<double> got = to_doubles(y);
        for (std::size_t i = 0; i < got.size(); ++i) {
          EXPECT_EQ(std::isfinite(got[i]), i / 10 != 1) << i;
        }
      }
    }
  }
}

TEST_P(BlockParity, ZerosAndNumbersNearZeroGiveTheBias) {
  const Blocks w({{BlockType::kQ40, 8}}, 64);
  for (const double value : {0.0, 1e-38}) {
    const Tensor x = from_doubles(cpu_, GetParam(), {1, 64}, std::vector<double>(64, value));
    const Tensor bias = on_cpu().vector("bias", 8, 4);
    const Tensor y = on_cpu().output(GetParam(), 1, 8).view;
    linear(cpu_, y, x, Weight::in_blocks(w.pieces, GetParam()), bias);
    EXPECT_EQ(to_doubles(y), to_doubles(bias));
  }
}

TEST_P(BlockParity, RowsOfATableAreItsNumbersRounded) {
  const Blocks w({{BlockType::kQ6K, 5}, {BlockType::kQ41, 6}, {BlockType::kQ3K, 7}}, 256);
  const std::vector<std::int32_t> ids = {17, 0, -1, 4, 5, 10, 11, 4};
  for (Context* ctx : {&cpu_, &ref_}) {
    const Tensor y = Maker{*ctx, GetParam(), GetParam()}.output(GetParam(), 8, 256).view;
    embedding(*ctx, y, Weight::in_blocks(w.pieces, GetParam()), from_ints(*ctx, ids));
    std::vector<double> exact;
    for (const std::int32_t id : ids) {
      for (std::size_t i = 0; i < 256; ++i) {
        exact.push_back(id < 0 ? 0.0 : w.numbers[static_cast<std::size_t>(id) * 256 + i]);
      }
    }
    expect_rounded(to_doubles(y), GetParam(), exact);
  }
  expect_served_by("embedding", true, GetParam() == DType::kF64 ? "ref" : "blocks");
  const Tensor y = on_cpu().output(GetParam(), 1, 256).view;
  EXPECT_THROW(embedding(cpu_, y, Weight::in_blocks(w.pieces, GetParam()), from_ints(cpu_, {18})), InputError);
}

TEST_P(BlockParity, TheLossHeadReadsBlocks) {
  const Blocks w({{BlockType::kQ80, 61}}, 64);
  const Tensor hidden = on_cpu().input("hidden", 3, 64, 1).view;
  const Tensor targets = from_ints(cpu_, {5, 60, 0});
  const Tensor got = on_cpu().output_vector(statistics(), 3);
  const Tensor wanted = on_cpu().output_vector(statistics(), 3);
  loss_head(cpu_, got, hidden, Weight::in_blocks(w.pieces, GetParam()), targets);
  loss_head(cpu_, wanted, hidden, Weight(from_doubles(cpu_, GetParam(), {61, 64}, w.numbers)), targets);
  EXPECT_EQ(to_doubles(got), to_doubles(wanted));
}

TEST_P(BlockParity, ADryRunTakesTheSameMemory) {
  const Blocks w({{BlockType::kQ41, 900}, {BlockType::kF16, 100}, {BlockType::kQ5K, 8}}, 768);
  const auto peak_of = [&](bool dry_run, std::int64_t tokens) {
    Context ctx = make_context({.dry_run = dry_run, .threads = 2, .memory_capacity = std::int64_t{1} << 28});
    const Tensor x = ctx.allocate(GetParam(), {tokens, 768});
    const Tensor y = ctx.allocate(GetParam(), {tokens, w.rows()});
    if (!dry_run) {
      copy_from_host(x, std::vector<std::byte>(static_cast<std::size_t>(x.bytes())));
    }
    linear(ctx, y, x, Weight::in_blocks(w.pieces, GetParam()), {}, y);
    return std::pair{ctx.allocator->use().peak_bytes, ctx.allocator->use().high_water};
  };
  for (const std::int64_t tokens : {1, 5, 26}) {
    EXPECT_EQ(peak_of(true, tokens), peak_of(false, tokens)) << tokens;
  }
}

TEST(BlockWeight, RefusesWhatDoesNotFit) {
  Context ctx = make_context({.memory_capacity = std::int64_t{1} << 24});
  const Blocks w({{BlockType::kQ41, 8}}, 64);
  const Weight weight = Weight::in_blocks(w.pieces, DType::kF32);
  const auto floats = [&](const Shape& shape, DType dtype = DType::kF32) { return ctx.allocate(dtype, shape); };
  EXPECT_THROW(linear(ctx, floats({1, 8}), floats({1, 32}), weight), ShapeError);
  EXPECT_THROW(linear(ctx, floats({1, 9}), floats({1, 64}), weight), ShapeError);
  EXPECT_THROW(linear(ctx, floats({1, 8}, DType::kBF16), floats({1, 64}, DType::kBF16), weight), ShapeError);
  EXPECT_THROW(linear_input_grad(ctx, floats({1, 64}), floats({1, 8}), weight, Accumulate::kStore), ShapeError);
  EXPECT_THROW(
      loss_head_with_grad(ctx, floats({1}), floats({1, 64}), {}, floats({1, 64}), weight, from_ints(ctx, {1}), 1),
      ShapeError);
  EXPECT_THROW(embedding(ctx, floats({1, 32}), weight, from_ints(ctx, {1})), ShapeError);
  EXPECT_THROW(Weight::in_blocks({}, DType::kF32), ShapeError);
  const Blocks other({{BlockType::kQ41, 8}}, 32);
  EXPECT_THROW(Weight::in_blocks({w.pieces.front(), other.pieces.front()}, DType::kF32), ShapeError);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, BlockParity, ::testing::ValuesIn(kFloats),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace caravan::ops::testing

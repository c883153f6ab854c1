// Steps of decoding on the CUDA backend against the reference; cached attention has its cases in parity_test.cc.
#include <cmath>

#include "tests/ops/parity.h"

namespace caravan::ops::testing {
namespace {

class DecodingParity : public Parity {};

// As many rows as no grid has blocks but in its first axis.
constexpr std::int64_t kManyRows = 66000;

TEST_P(DecodingParity, AppendedRowsAreTheReferences) {
  for (const std::int64_t rows : {std::int64_t{3}, kManyRows}) {
    const std::int64_t columns = rows == kManyRows ? 1 : 300;
    std::vector<std::int32_t> at;
    for (std::int64_t i = 0; i < rows; ++i) {
      at.push_back(static_cast<std::int32_t>(i % 7 == 2 ? -1 - i : rows - i));  // one row is behind the last
    }
    const auto appended = [&](const Maker& make) {
      const Tensor dst = make.input("dst", rows, columns, 1).view;
      append_rows(make.ctx, dst, make.input("src", rows, columns, 1).view, from_ints(make.ctx, at));
      return to_doubles(dst);
    };
    EXPECT_EQ(appended(on_cpu()), appended(on_ref())) << rows;
  }
}

TEST_P(DecodingParity, TheLargestLogitIsTheReferences) {
  if (size_of(GetParam()) < 4) {
    return;  // logits are f32 or f64
  }
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{4, 40000}, {3, 1}, {40, 300}}) {
    const auto largest = [rows, columns](const Maker& make) {
      const Tensor logits = make.input("logits", rows, columns, 1).view;
      poison(make.ctx, logits, 1, columns - 1);
      const Tensor ids = from_ints(make.ctx, std::vector<std::int32_t>(static_cast<std::size_t>(rows), 9));
      argmax(make.ctx, ids, logits);
      return to_doubles(ids);
    };
    EXPECT_EQ(largest(on_cpu()), largest(on_ref())) << rows << " " << columns;
  }
}

TEST_P(DecodingParity, ManySequencesLookAtTheirCaches) {
  AttentionCase c{.name = "many", .queries = kManyRows, .keys = kManyRows, .heads = {1, 1, 1}, .ranges = {}};
  for (std::int64_t i = 0; i < kManyRows; ++i) {
    c.ranges.push_back({i, i + 1, i, i + 1, 1});
  }
  EXPECT_EQ(run_cached(on_cpu(), c).y, run_cached(on_ref(), c).y);  // one key: its value
}

INSTANTIATE_TEST_SUITE_P(Dtypes, DecodingParity, ::testing::ValuesIn(kFloats),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace caravan::ops::testing

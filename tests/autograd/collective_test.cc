// A feed-forward split over ranks as tensor parallelism splits it, against the whole one.
#include "caravan/autograd/collective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <mutex>
#include <numeric>
#include <span>
#include <vector>

#include "caravan/autograd/functions.h"
#include "caravan/base/error.h"
#include "caravan/comm/communicator.h"
#include "caravan/tensor/copy.h"

namespace caravan::autograd {
namespace {

constexpr std::int64_t kTokens = 12, kIn = 6, kMiddle = 8;

std::vector<double> numbers(std::int64_t count, double phase) {
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = std::sin(1.7 * static_cast<double>(i) + phase);
  }
  return values;
}

struct Side {
  ops::Context ops =
      ops::make_context({.backend = ops::Backend::kRef, .dry_run = false, .threads = 1, .memory_capacity = 1 << 24});
  SequenceLayout layout = pack(std::vector<std::int64_t>{kTokens});
  Tape tape{ops};
  Context ctx{ops, layout};

  Side() { ctx.tape = &tape; }

  Tensor upload(const std::vector<double>& values, const Shape& shape) {
    const Tensor tensor = ops.allocate(DType::kF64, shape);
    copy_from_host(tensor, std::as_bytes(std::span(values)));
    return tensor;
  }

  Parameter parameter(const std::vector<double>& values, const Shape& shape) {
    ParamSpec spec;
    spec.shape = shape;
    Parameter result{spec, ops::Weight(upload(values, shape)), {}, {}};
    result.gradient = upload(std::vector<double>(values.size(), 0.0), shape);
    return result;
  }
};

// Rows [begin, end) or columns [begin, end) of a [rows, columns] matrix.
std::vector<double> part(const std::vector<double>& whole, std::int64_t columns, std::int64_t row_begin,
                         std::int64_t row_end, std::int64_t column_begin, std::int64_t column_end) {
  std::vector<double> result;
  for (std::int64_t r = row_begin; r < row_end; ++r) {
    for (std::int64_t c = column_begin; c < column_end; ++c) {
      result.push_back(whole[static_cast<std::size_t>(r * columns + c)]);
    }
  }
  return result;
}

struct Result {
  std::vector<double> y, dx, d_up, d_down;
};

// y = down(up(x)) in one piece.
Result whole() {
  Side side;
  const Parameter up = side.parameter(numbers(kMiddle * kIn, 1), {kMiddle, kIn});
  const Parameter down = side.parameter(numbers(kIn * kMiddle, 2), {kIn, kMiddle});
  const Value x{side.upload(numbers(kTokens * kIn, 3), {kTokens, kIn}), side.tape.new_slot()};
  const Value y = linear(side.ctx, linear(side.ctx, x, up, nullptr), down, nullptr);
  side.tape.seed(y.slot, side.upload(numbers(kTokens * kIn, 4), {kTokens, kIn}));
  side.tape.backward(side.ctx, {0, 1});
  return {to_doubles(y.tensor), to_doubles(side.tape.take(x.slot)), to_doubles(up.gradient), to_doubles(down.gradient)};
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_NEAR(a[i], b[i], 1e-12) << i;
  }
}

// `sequence`: x and y are split by tokens too, and gathered and scattered at the borders.
void run_split(int ranks, bool sequence) {
  const Result expected = whole();
  comm::run_threads(ranks, [&](comm::Communicator& comm) {
    Side side;
    const std::int64_t middle = kMiddle / ranks;
    const std::int64_t first = comm.rank() * middle;
    const std::int64_t tokens = sequence ? kTokens / ranks : kTokens;
    const std::int64_t token = sequence ? comm.rank() * tokens : 0;
    const Parameter up =
        side.parameter(part(numbers(kMiddle * kIn, 1), kIn, first, first + middle, 0, kIn), {middle, kIn});
    const Parameter down =
        side.parameter(part(numbers(kIn * kMiddle, 2), kMiddle, 0, kIn, first, first + middle), {kIn, middle});
    const auto rows = [&](const std::vector<double>& values) {
      return part(values, kIn, token, token + tokens, 0, kIn);
    };
    const Value x{side.upload(rows(numbers(kTokens * kIn, 3)), {tokens, kIn}), side.tape.new_slot()};
    const Value in = collective_end(
        side.ctx, collective_begin(side.ctx, comm, sequence ? Collective::kGatherRows : Collective::kCopy, x));
    const Value partial = linear(side.ctx, linear(side.ctx, in, up, nullptr), down, nullptr);
    const Value y = collective_end(
        side.ctx, collective_begin(side.ctx, comm, sequence ? Collective::kScatterRows : Collective::kReduce, partial));
    side.tape.seed(y.slot, side.upload(rows(numbers(kTokens * kIn, 4)), {tokens, kIn}));
    side.tape.backward(side.ctx, {0, 1});
    expect_near(to_doubles(y.tensor), rows(expected.y));
    expect_near(to_doubles(side.tape.take(x.slot)), rows(expected.dx));
    expect_near(to_doubles(up.gradient), part(expected.d_up, kIn, first, first + middle, 0, kIn));
    expect_near(to_doubles(down.gradient), part(expected.d_down, kMiddle, 0, kIn, first, first + middle));
  });
}

TEST(Collective, ColumnAndRowSplitProductsGiveTheWhole) {
  for (const int ranks : {1, 2, 4}) {
    run_split(ranks, /*sequence=*/false);
  }
}

TEST(Collective, SequenceParallelBordersGiveTheWhole) {
  for (const int ranks : {1, 2, 4}) {
    run_split(ranks, /*sequence=*/true);
  }
}

TEST(Collective, RefusesRowsThatRanksDoNotDivide) {
  EXPECT_THROW(comm::run_threads(2,
                                 [](comm::Communicator& comm) {
                                   Side side;
                                   const Value x{side.upload(numbers(3 * kIn, 3), {3, kIn}), side.tape.new_slot()};
                                   collective_begin(side.ctx, comm, Collective::kScatterRows, x);
                                 }),
               ShapeError);
}

}  // namespace
}  // namespace caravan::autograd

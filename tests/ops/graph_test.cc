// Recorded ops on a CUDA device, real or emulated.  Built where there is CUDA.
#include "caravan/ops/graph.h"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "caravan/base/error.h"
#include "caravan/ops/elementwise.h"
#include "caravan/ops/linear.h"
#include "caravan/tensor/copy.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan::ops {
namespace {

using Doubles = std::vector<double>;

Context context() {
  return make_context({.backend = Backend::kCuda, .memory_capacity = std::int64_t{1} << 26});
}

class GraphTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string refusal = cuda_memory::refusal(0); !refusal.empty()) {
      GTEST_SKIP() << refusal;
    }
  }
};

void set(const Tensor& tensor, const std::vector<float>& values) {
  copy_from_host(tensor, std::as_bytes(std::span(values)));
}

TEST_F(GraphTest, RepeatsItsOpsOnWhatStandsInItsTensors) {
  Context ctx = context();
  const Tensor x = to_device(*ctx.allocator, {1, 2, 3}, {3});
  const Tensor y = to_device(*ctx.allocator, {0, 0, 0}, {3});
  int asked = 0;
  const auto body = [&](Context& inside) {
    ++asked;
    const Tensor twice = inside.allocate(DType::kF32, {3});
    add(inside, twice, x, x);
    add(inside, y, y, twice);
  };
  Graph graph(ctx, body);
  EXPECT_EQ(to_doubles(y), (Doubles{0, 0, 0})) << "recording runs nothing";
  graph.run();
  set(x, {10, 20, 30});
  graph.run();
  EXPECT_EQ(to_doubles(y), (Doubles{22, 44, 66}));
  EXPECT_EQ(asked, 1);
}

TEST_F(GraphTest, CopiesAgainWhatItsBodyCopiedFromMemoryThatIsGone) {
  Context ctx = context();
  const Tensor y = to_device(*ctx.allocator, {0, 0}, {2});
  Graph graph(ctx, [&](Context& inside) {
    std::vector<float> values{1, 2};
    const Tensor x = to_device(*inside.allocator, values, {2});
    values.assign(2, -1);
    add(inside, y, y, x);
  });
  graph.run();
  graph.run();
  EXPECT_EQ(to_doubles(y), (Doubles{2, 4}));
}

// Memory between runs is anybody's; who holds some of it when the graph is to run again keeps it.
TEST_F(GraphTest, IsRecordedAnewWhereItsMemoryIsTaken) {
  Context ctx = context();
  const Tensor x = to_device(*ctx.allocator, {1, 2, 3}, {3});
  const Tensor y = to_device(*ctx.allocator, {0, 0, 0}, {3});
  int asked = 0;
  Graph graph(ctx, [&](Context& inside) {
    ++asked;
    const Tensor twice = inside.allocate(DType::kF32, {3});
    add(inside, twice, x, x);
    add(inside, y, twice, x);
  });
  graph.run();
  {
    const Tensor passing = to_device(*ctx.allocator, {7, 7, 7}, {3});
    EXPECT_EQ(to_doubles(passing), (Doubles{7, 7, 7}));
  }
  graph.run();
  EXPECT_EQ(asked, 1);
  const Tensor staying = to_device(*ctx.allocator, {7, 7, 7}, {3});
  graph.run();
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(to_doubles(y), (Doubles{3, 6, 9}));
  EXPECT_EQ(to_doubles(staying), (Doubles{7, 7, 7}));
}

TEST_F(GraphTest, TakesNoMoreMemoryThanItsBody) {
  Context ctx = context();
  const Tensor x = to_device(*ctx.allocator, {1, 2, 3}, {3});
  const auto body = [&](Context& inside) {
    const Tensor y = inside.allocate(DType::kF32, {1000, 3});
    zero(inside, y);
    const Tensor z = inside.allocate(DType::kF32, {500, 3}, Segment::kWorkspace);
    zero(inside, z);
  };
  body(ctx);
  const MemoryUse before = ctx.allocator->use();
  Graph graph(ctx, body);
  graph.run();
  const MemoryUse after = ctx.allocator->use();
  EXPECT_EQ(after.high_water, before.high_water);
  EXPECT_EQ(after.peak_bytes, before.peak_bytes);
  EXPECT_EQ(after.live_bytes, before.live_bytes);
}

TEST_F(GraphTest, RefusesABodyThatKeepsMemoryOrWaits) {
  Context ctx = context();
  const Tensor x = to_device(*ctx.allocator, {1, 2, 3}, {3});
  Tensor kept;
  EXPECT_THROW(Graph(ctx, [&](Context& inside) { kept = inside.allocate(DType::kF32, {3}); }), Error);
  EXPECT_THROW(Graph(ctx, [&](Context&) { to_doubles(x); }), Error);
  // And leaves the stream as it was.
  add(ctx, x, x, x);
  EXPECT_EQ(to_doubles(x), (Doubles{2, 4, 6}));
}

TEST_F(GraphTest, IsItsBodyWhereGraphsAreNotWanted) {
  Context ctx = context();
  ctx.record_graphs = false;
  int asked = 0;
  Graph graph(ctx, [&](Context&) { ++asked; });
  graph.run();
  graph.run();
  EXPECT_EQ(asked, 2);
}

}  // namespace
}  // namespace caravan::ops

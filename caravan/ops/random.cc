#include "caravan/ops/random.h"

#include <algorithm>
#include <span>
#include <vector>

#include "caravan/base/threads.h"
#include "caravan/ops/args.h"
#include "caravan/ops/argument_check.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops {
namespace {

// Elements at a time: large enough to share among threads.
constexpr std::int64_t kBlock = 1 << 20;
constexpr std::int64_t kGrain = 1 << 14;

void fill_from_host(Context& ctx, const Tensor& y, const RandomStream& stream, std::uint64_t first, double deviation) {
  const Tensor flat = y.reshape({y.elements()});
  std::vector<float> values;
  std::vector<std::byte> bytes;
  for (std::int64_t begin = 0; begin < flat.rows(); begin += kBlock) {
    const std::int64_t count = std::min(kBlock, flat.rows() - begin);
    values.resize(static_cast<std::size_t>(count));
    parallel_for(ctx.threads, count, kGrain, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t i = from; i < to; ++i) {
        values[static_cast<std::size_t>(i)] =
            static_cast<float>(deviation * stream.normal(first + static_cast<std::uint64_t>(begin + i)));
      }
    });
    bytes.resize(static_cast<std::size_t>(count * size_of(flat.dtype())));
    convert_elements(flat.dtype(), bytes.data(), DType::kF32, std::as_bytes(std::span(values)).data(), count);
    copy_from_host(flat.row_range(begin, begin + count), bytes);
  }
}

}  // namespace

void random_normal(Context& ctx, const Tensor& y, const RandomStream& stream, std::uint64_t first, double deviation) {
  const ArgumentCheck check(ctx, "random_normal");
  check.floats("y", y);
  check.whole("y", y, y.dtype(), y.shape());
  if (y.elements() == 0) {
    return;
  }
  if (ctx.backend == Backend::kCuda) {
    dispatch<RandomNormalArgs>(ctx, "random_normal", cuda::random_normal_list(), {y, stream, first, deviation});
  } else if (!ctx.dry_run()) {
    fill_from_host(ctx, y, stream, first, deviation);
  }
}

}  // namespace caravan::ops

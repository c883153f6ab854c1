#include "caravan/ops/cuda/attention_plans.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "caravan/base/error.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops::cuda {
namespace {

void add_tiles(std::vector<QueryTile>& tiles, std::int64_t begin, std::int64_t end, std::size_t first,
               std::size_t last) {
  for (std::int64_t at = begin; at < end; at += kQueryTile) {
    tiles.push_back({static_cast<std::int32_t>(at), static_cast<std::int32_t>(std::min(end, at + kQueryTile)),
                     static_cast<std::int32_t>(first), static_cast<std::int32_t>(last)});
  }
}

// Tiles over [0, query_rows): ranges stand in order, those of the same rows together.
std::vector<QueryTile> tiles_of(const std::vector<AttentionRange>& ranges, std::int64_t query_rows) {
  std::vector<QueryTile> tiles;
  std::int64_t covered = 0;
  for (std::size_t first = 0; first < ranges.size();) {
    std::size_t last = first + 1;
    while (last < ranges.size() && ranges[last].query_begin == ranges[first].query_begin) {
      ++last;
    }
    add_tiles(tiles, covered, ranges[first].query_begin, 0, 0);
    add_tiles(tiles, ranges[first].query_begin, ranges[first].query_end, first, last);
    covered = ranges[first].query_end;
    first = last;
  }
  add_tiles(tiles, covered, query_rows, 0, 0);
  return tiles;
}

}  // namespace

const DeviceRanges& device_ranges(Context& ctx, const std::vector<AttentionRange>& ranges, std::int64_t query_rows) {
  CudaState& now = state(ctx);
  if (now.attention == nullptr) {
    now.attention = std::make_shared<AttentionPlans>();
  }
  std::deque<DeviceRanges>& lists = now.attention->lists;
  const auto found = std::ranges::find_if(lists, [&](const DeviceRanges& one) {
    return one.query_rows == query_rows && one.bytes.device() == ctx.allocator->device() && one.ranges == ranges;
  });
  if (found != lists.end()) {
    keep_for_graph(ctx, std::make_shared<const Tensor>(found->bytes));
    return *found;
  }
  require_not_recording(ctx, "a list of attention ranges");
  ++now.plans;
  constexpr std::size_t kKept = 8;
  if (lists.size() >= kKept) {
    lists.pop_back();
  }
  const std::vector<QueryTile> tiles = tiles_of(ranges, query_rows);
  const std::size_t range_bytes = ranges.size() * sizeof(AttentionRange);
  std::vector<std::byte> bytes(range_bytes + tiles.size() * sizeof(QueryTile));
  std::vector<AttentionRange> bounded(ranges);
  for (AttentionRange& range : bounded) {
    // A diagonal beyond all keys masks nothing, however large: kernels add it to places of rows.
    range.diagonal = std::min(range.diagonal, range.key_end - range.key_begin);
  }
  if (!bounded.empty()) {
    std::memcpy(bytes.data(), bounded.data(), range_bytes);
  }
  if (!tiles.empty()) {
    std::memcpy(bytes.data() + range_bytes, tiles.data(), tiles.size() * sizeof(QueryTile));
  }
  DeviceRanges made{ranges, query_rows, static_cast<std::int64_t>(tiles.size()),
                    ctx.allocate(DType::kU8, {static_cast<std::int64_t>(bytes.size())}, Segment::kWorkspace)};
  copy_from_host(made.bytes, bytes);
  lists.push_front(std::move(made));
  return lists.front();
}

void throw_no_tile(std::int64_t head_dim, std::int64_t bytes, std::int64_t most, bool is_f64) {
  throw UnsupportedError(fmt::format(
      "attention with {} elements a head takes {} bytes of shared memory a block on this GPU, which gives {}; "
      "run with --device cpu{}",
      head_dim, bytes, most, is_f64 ? ", or in f32" : ""));
}

}  // namespace caravan::ops::cuda

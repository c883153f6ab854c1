// Lists of ranges as kernels read them, kept on the device: every layer of a pass uses the same.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "caravan/layout/attention_range.h"
#include "caravan/ops/context.h"
#include "caravan/ops/cuda/cudnn_graph.h"
#include "caravan/ops/cuda/state.h"

namespace caravan::ops {

namespace cuda {

// What attention_cudnn.cu keeps of its calls.
class CudnnCalls;

// Neighbouring query rows, at most kQueryTile of them, and the ranges [first, last) that they look at: none for padding.
struct QueryTile {
  std::int32_t begin, end;
  std::int32_t first, last;
};

inline constexpr std::int64_t kQueryTile = 32;

// `ranges` and tiles over all query rows, on the device.
struct DeviceRanges {
  std::vector<AttentionRange> ranges;
  std::int64_t query_rows = 0;
  std::int64_t tiles = 0;
  Tensor bytes;  // the ranges, then the tiles

  const AttentionRange* device_ranges() const { return reinterpret_cast<const AttentionRange*>(bytes.address()); }
  const QueryTile* device_tiles() const {
    return reinterpret_cast<const QueryTile*>(bytes.address() + ranges.size() * sizeof(AttentionRange));
  }
};

// Makes them where they are not there yet.  In a dry run memory is taken and nothing copied.  The last few lists are kept.
const DeviceRanges& device_ranges(Context& ctx, const std::vector<AttentionRange>& ranges, std::int64_t query_rows);

// Throws UnsupportedError: not even the smallest tiles of heads this wide fit into the shared memory of a block.
[[noreturn]] void throw_no_tile(std::int64_t head_dim, std::int64_t bytes, std::int64_t most, bool is_f64);

}  // namespace cuda

class AttentionPlans {
 public:
  std::deque<cuda::DeviceRanges> lists;  // the newest first

  // cuDNN's: its handle, its graphs of late by shape (null where it refused, for the reason it gave last), and the calls of late.
  std::shared_ptr<cuda::Cudnn> cudnn;
  struct KeptGraph {
    std::shared_ptr<cuda::SdpaGraph> graph;
    std::uint64_t last_use = 0;
  };
  std::map<cuda::SdpaShape, KeptGraph> graphs;
  std::uint64_t graph_uses = 0;
  std::string cudnn_refusal;
  std::shared_ptr<cuda::CudnnCalls> cudnn_calls;
};

}  // namespace caravan::ops

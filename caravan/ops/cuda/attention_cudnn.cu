// How calls of attention become cuDNN's batches.
//
// Ranges of equal length at equal distances are one batch as they stand.  Others are sorted into classes by length, each a
// batch of sequences whose lengths and begins stand in tensors; a batch holds as many as its scratch allows, because the
// deterministic backward of Hopper keeps scores of [batch, heads, length, length].  Statistics go through scratch in
// cuDNN's order, [batch, heads, length].
#include "caravan/ops/cuda/attention_cudnn.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>

#include "caravan/ops/cuda/attention_plans.h"
#include "caravan/ops/cuda/cudnn_graph.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/tensor/copy.h"

namespace caravan::ops::cuda {
namespace {

// One call of cuDNN: which ranges it computes, and how they lie.
struct Batch {
  bool ragged = false;
  std::int64_t length = 0;           // of each sequence, or at most
  std::int64_t size = 0;             // sequences, with empty ones at the end of a ragged batch
  std::vector<std::size_t> members;  // of the list of ranges
};

// Bytes of scores that a batch may keep.
constexpr std::int64_t kMostScoreBytes = std::int64_t{9} << 29;
constexpr std::int64_t kShortest = 128;  // of a class of lengths

std::int64_t length_of(const AttentionRange& range) {
  return range.query_end - range.query_begin;
}

std::int64_t most_sequences(std::int64_t length, std::int64_t heads) {
  return std::max<std::int64_t>(1, kMostScoreBytes / (heads * length * length * 2));
}

bool side_by_side(const std::vector<AttentionRange>& ranges) {
  const auto equal_steps = [&](auto begin_of) {
    const std::int64_t step = ranges.size() < 2 ? length_of(ranges[0]) : begin_of(ranges[1]) - begin_of(ranges[0]);
    for (std::size_t i = 1; i < ranges.size(); ++i) {
      if (begin_of(ranges[i]) - begin_of(ranges[i - 1]) != step) {
        return false;
      }
    }
    return step > 0;
  };
  return std::ranges::all_of(ranges, [&](const auto& one) { return length_of(one) == length_of(ranges[0]); }) &&
         equal_steps([](const AttentionRange& one) { return one.query_begin; }) &&
         equal_steps([](const AttentionRange& one) { return one.key_begin; });
}

// `exact`: a batch of equal lengths is made for just this length; else for its class, so that prompts of any length share
// plans.
std::vector<Batch> batches_of(const std::vector<AttentionRange>& ranges, std::int64_t heads, bool exact) {
  std::vector<Batch> batches;
  if (exact && side_by_side(ranges)) {
    const std::int64_t length = length_of(ranges[0]);
    const auto most = static_cast<std::size_t>(most_sequences(length, heads));
    for (std::size_t begin = 0; begin < ranges.size(); begin += most) {
      Batch batch{false, length, 0, {}};
      for (std::size_t i = begin; i < std::min(ranges.size(), begin + most); ++i) {
        batch.members.push_back(i);
      }
      batch.size = static_cast<std::int64_t>(batch.members.size());
      batches.push_back(batch);
    }
    return batches;
  }
  std::map<std::int64_t, std::vector<std::size_t>> classes;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const auto length = static_cast<std::uint64_t>(std::max(kShortest, length_of(ranges[i])));
    classes[static_cast<std::int64_t>(std::bit_ceil(length))].push_back(i);
  }
  for (const auto& [length, members] : classes) {
    const auto most = static_cast<std::size_t>(most_sequences(length, heads));
    for (std::size_t begin = 0; begin < members.size(); begin += most) {
      Batch batch{true, length, 0, {}};
      const std::size_t end = std::min(members.size(), begin + most);
      batch.members.assign(members.begin() + static_cast<std::ptrdiff_t>(begin),
                           members.begin() + static_cast<std::ptrdiff_t>(end));
      batch.size = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(end - begin)));
      batches.push_back(batch);
    }
  }
  return batches;
}

// The tensors of a call in the order of Place; forward calls have the first four.
enum Place { kQuery, kKey, kValue, kOut, kDOut, kDQuery, kDKey, kDValue, kPlaces };
using Tensors = std::array<Tensor, kPlaces>;

bool of_keys(int place) {
  return place == kKey || place == kValue || place == kDKey || place == kDValue;
}

struct Call {
  Tensors tensors;
  HeadShape heads;
  const std::vector<AttentionRange>& ranges;
  double scale;
  bool backward;
  bool with_stats;

  int places() const { return backward ? kPlaces : kDOut; }
  bool exact() const { return backward || with_stats; }
};

Call call_of(const AttentionArgs& args) {
  return {
      {args.query, args.key, args.value, args.out}, args.heads, *args.ranges, args.scale, false, args.lse.defined()};
}

Call call_of(const AttentionGradArgs& args) {
  return {{args.query, args.key, args.value, args.out, args.d_out, args.d_query, args.d_key, args.d_value},
          args.heads,
          *args.ranges,
          args.scale,
          true,
          true};
}

SdpaShape shape_of(const Context& ctx, const Call& call, const Batch& batch) {
  SdpaShape shape;
  shape.deterministic = ctx.deterministic || !call.backward;
  shape.backward = call.backward;
  shape.ragged = batch.ragged;
  shape.with_stats = call.with_stats;
  shape.dtype = call.tensors[kQuery].dtype();
  shape.batch = batch.size;
  shape.length = batch.length;
  shape.heads = call.heads.heads;
  shape.kv_heads = call.heads.kv_heads;
  shape.head_dim = call.heads.head_dim;
  shape.scale = call.scale;
  SdpaStrides* const strides[] = {&shape.query, &shape.key,     &shape.value, &shape.out,
                                  &shape.d_out, &shape.d_query, &shape.d_key, &shape.d_value};
  for (int place = 0; place < call.places(); ++place) {
    const std::int64_t row = call.tensors[static_cast<std::size_t>(place)].row_stride();
    std::int64_t step = batch.length;
    if (!batch.ragged && batch.members.size() > 1) {
      const AttentionRange& first = call.ranges[batch.members[0]];
      const AttentionRange& second = call.ranges[batch.members[1]];
      step = of_keys(place) ? second.key_begin - first.key_begin : second.query_begin - first.query_begin;
    }
    *strides[place] = {step * row, row};
  }
  return shape;
}

// The graph of a shape, or none where cuDNN refuses it.  What it answered is kept.
SdpaGraph* graph_of(Context& ctx, const SdpaShape& shape) {
  CudaState& now = state(ctx);
  if (now.attention == nullptr) {
    now.attention = std::make_shared<AttentionPlans>();
  }
  AttentionPlans& plans = *now.attention;
  const auto found = plans.graphs.find(shape);
  if (found != plans.graphs.end()) {
    keep_for_graph(ctx, found->second);
    return found->second.get();
  }
  require_not_recording(ctx, "a graph of cuDNN");
  std::shared_ptr<SdpaGraph> made;
  try {
    if (plans.cudnn == nullptr) {
      plans.cudnn = open_cudnn();
    }
    made = std::make_shared<SdpaGraph>(*plans.cudnn, shape);
    ++now.plans;
  } catch (const UnsupportedError& error) {
    plans.cudnn_refusal = error.what();
  }
  return plans.graphs.emplace(shape, std::move(made)).first->second.get();
}

const char* refuse(const Context& ctx, const Call& call) {
  const DType dtype = call.tensors[kQuery].dtype();
  if (dtype != DType::kBF16 && dtype != DType::kF16) {
    return "cuDNN has attention for bf16 and f16";
  }
  if (call.heads.head_dim % 8 != 0 || call.heads.head_dim > 128) {
    return "head_dim is no multiple of 8 up to 128";
  }
  if (call.ranges.empty()) {
    return "no row sees another";
  }
  for (std::size_t i = 0; i < call.ranges.size(); ++i) {
    const AttentionRange& range = call.ranges[i];
    if (range.diagonal != 0 || range.key_end - range.key_begin != length_of(range)) {
      return "a range is not a causal square";
    }
    if (i > 0 && range.query_begin == call.ranges[i - 1].query_begin) {
      return "queries see several ranges";
    }
  }
  for (int place = 0; place < call.places(); ++place) {
    const Tensor& tensor = call.tensors[static_cast<std::size_t>(place)];
    if (!wide(tensor)) {
      return "rows do not begin at multiples of 16 bytes";
    }
    if (tensor.rows() * tensor.row_stride() > INT32_MAX) {
      return "places of elements beyond 2^31";
    }
  }
  // Making a plan changes nothing that a caller sees but the time of the next call.
  Context& mutable_ctx = const_cast<Context&>(ctx);
  if (!state(mutable_ctx).has_gpu) {
    return nullptr;
  }
  for (const Batch& batch : batches_of(call.ranges, call.heads.heads, call.exact())) {
    if (graph_of(mutable_ctx, shape_of(ctx, call, batch)) == nullptr) {
      return state(mutable_ctx).attention->cudnn_refusal.c_str();
    }
  }
  return nullptr;
}

// Lengths and begins of a ragged batch: query lengths, key lengths [size], then for each place begins [size + 1].
std::vector<std::int32_t> lists_of(const Call& call, const Batch& batch) {
  std::vector<std::int32_t> values;
  for (int pass = 0; pass < 2; ++pass) {
    for (std::int64_t i = 0; i < batch.size; ++i) {
      const auto at = static_cast<std::size_t>(i);
      values.push_back(at < batch.members.size() ? static_cast<std::int32_t>(length_of(call.ranges[batch.members[at]]))
                                                 : 0);
    }
  }
  for (int place = 0; place < call.places(); ++place) {
    const std::int64_t stride = call.tensors[static_cast<std::size_t>(place)].row_stride();
    for (std::int64_t i = 0; i <= batch.size; ++i) {
      const auto at = std::min(static_cast<std::size_t>(i), batch.members.size() - 1);
      const AttentionRange& range = call.ranges[batch.members[at]];
      const bool behind = static_cast<std::size_t>(i) >= batch.members.size();
      const std::int64_t row =
          of_keys(place) ? (behind ? range.key_end : range.key_begin) : (behind ? range.query_end : range.query_begin);
      values.push_back(static_cast<std::int32_t>(row * stride));
    }
  }
  return values;
}

// The lists on the device, and for the statistics the first row and length of each member.
const Tensor& device_lists(Context& ctx, const Call& call, const Batch& batch) {
  std::vector<std::int32_t> values = lists_of(call, batch);
  for (const std::size_t member : batch.members) {
    values.push_back(static_cast<std::int32_t>(call.ranges[member].query_begin));
    values.push_back(static_cast<std::int32_t>(length_of(call.ranges[member])));
  }
  AttentionPlans& plans = *state(ctx).attention;
  const auto found = std::ranges::find_if(plans.ints, [&](const auto& one) {
    return one.first == values && one.second.device() == ctx.allocator->device();
  });
  if (found != plans.ints.end()) {
    keep_for_graph(ctx, std::make_shared<const Tensor>(found->second));
    return found->second;
  }
  require_not_recording(ctx, "a list of attention ranges");
  constexpr std::size_t kKept = 64;
  if (plans.ints.size() >= kKept) {
    plans.ints.pop_back();
  }
  const Tensor made = ctx.allocate(DType::kI32, {static_cast<std::int64_t>(values.size())}, Segment::kWorkspace);
  copy_from_host(made, std::as_bytes(std::span(values)));
  plans.ints.emplace_front(values, made);
  return plans.ints.front().second;
}

void prepare(Context& ctx, const Call& call) {
  if (state(ctx).attention == nullptr) {
    state(ctx).attention = std::make_shared<AttentionPlans>();
  }
  for (const Batch& batch : batches_of(call.ranges, call.heads.heads, call.exact())) {
    device_lists(ctx, call, batch);
  }
}

std::int64_t stats_bytes(const Call& call, const Batch& batch) {
  constexpr std::int64_t kAligned = 256;
  const std::int64_t bytes = call.with_stats ? batch.size * call.heads.heads * batch.length * 4 : 0;
  return (bytes + kAligned - 1) / kAligned * kAligned;
}

// Where no GPU can be asked: the backward's scores and its three gradients in f32 for every query head.
std::int64_t estimated(const Call& call, const Batch& batch) {
  const std::int64_t rows = batch.size * call.heads.heads * batch.length;
  return call.backward ? rows * batch.length * 2 + rows * call.heads.head_dim * 4 * 3 : 0;
}

std::int64_t workspace_of(Context& ctx, const Call& call) {
  std::int64_t most = 1;
  for (const Batch& batch : batches_of(call.ranges, call.heads.heads, call.exact())) {
    const std::int64_t own =
        state(ctx).has_gpu ? graph_of(ctx, shape_of(ctx, call, batch))->workspace() : estimated(call, batch);
    most = std::max(most, stats_bytes(call, batch) + own);
  }
  return most;
}

// lse [rows, heads] <-> stats [batch, heads, length].  spans: the first row and the length of each sequence.
__global__ void stats_kernel(float* lse, float* stats, const std::int32_t* spans, std::int64_t heads,
                             std::int64_t length, bool to_lse) {
  const std::int64_t sequence = blockIdx.y;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t row = at / heads;
  const std::int64_t head = at % heads;
  if (row >= spans[2 * sequence + 1]) {
    return;
  }
  float* const one = lse + (spans[2 * sequence] + row) * heads + head;
  float* const other = stats + (sequence * heads + head) * length + row;
  *(to_lse ? one : other) = to_lse ? *other : *one;
}

__global__ void fill_kernel(float* values, std::int64_t count, float value) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at < count) {
    values[at] = value;
  }
}

constexpr unsigned kThreads = 256;

void convert_stats(const Call& call, const Batch& batch, const Tensor& lse, float* stats, const std::int32_t* spans,
                   bool to_lse) {
  launch("attention", stats_kernel,
         dim3(blocks_for(batch.length * call.heads.heads, kThreads), static_cast<unsigned>(batch.members.size())),
         kThreads, 0, elements<float>(lse), stats, spans, call.heads.heads, batch.length, to_lse);
}

std::int64_t covered(const Call& call) {
  std::int64_t rows = 0;
  for (const AttentionRange& range : call.ranges) {
    rows += length_of(range);
  }
  return rows;
}

// Rows of no range: outputs 0, statistics minus infinity.
void clear_padding(Context& ctx, const Call& call, const Tensor& lse) {
  const std::int64_t rows = covered(call);
  for (int place = call.backward ? kDQuery : kOut; place < (call.backward ? kPlaces : kDOut); ++place) {
    const Tensor& tensor = call.tensors[static_cast<std::size_t>(place)];
    if (rows < tensor.rows()) {
      zero_list().front().run(ctx, {tensor}, nullptr);
    }
  }
  if (!call.backward && lse.defined() && rows < lse.rows()) {
    launch("attention", fill_kernel, blocks_for(lse.elements(), kThreads), kThreads, 0, elements<float>(lse),
           lse.elements(), -INFINITY);
  }
}

void run(Context& ctx, const Call& call, const Tensor& lse, std::byte* workspace) {
  clear_padding(ctx, call, lse);
  for (const Batch& batch : batches_of(call.ranges, call.heads.heads, call.exact())) {
    SdpaGraph& graph = *graph_of(ctx, shape_of(ctx, call, batch));
    const Tensor& lists = device_lists(ctx, call, batch);
    auto* const ints = reinterpret_cast<std::int32_t*>(lists.address());
    const std::int64_t begins = 2 * batch.size;
    const std::int32_t* const spans = ints + begins + call.places() * (batch.size + 1);
    auto* const stats = reinterpret_cast<float*>(workspace);
    // A ragged batch's begins count from the tensor's first row, another's rows from its first sequence.
    const AttentionRange& first = call.ranges[batch.members[0]];
    const auto pointer = [&](int place) -> void* {
      const Tensor& tensor = call.tensors[static_cast<std::size_t>(place)];
      const std::int64_t row = batch.ragged ? 0 : of_keys(place) ? first.key_begin : first.query_begin;
      return tensor.address() + row * tensor.row_stride() * size_of(tensor.dtype());
    };
    const auto begin = [&](int place) -> void* { return ints + begins + place * (batch.size + 1); };
    SdpaPointers p;
    p.query = pointer(kQuery);
    p.key = pointer(kKey);
    p.value = pointer(kValue);
    p.out = pointer(kOut);
    p.stats = stats;
    p.query_lengths = ints;
    p.key_lengths = ints + batch.size;
    p.query_begins = begin(kQuery);
    p.key_begins = begin(kKey);
    p.value_begins = begin(kValue);
    p.out_begins = begin(kOut);
    if (call.backward) {
      p.d_out = pointer(kDOut);
      p.d_query = pointer(kDQuery);
      p.d_key = pointer(kDKey);
      p.d_value = pointer(kDValue);
      p.d_out_begins = begin(kDOut);
      p.d_query_begins = begin(kDQuery);
      p.d_key_begins = begin(kDKey);
      p.d_value_begins = begin(kDValue);
      convert_stats(call, batch, lse, stats, spans, /*to_lse=*/false);
    }
    graph.run(p, workspace + stats_bytes(call, batch));
    if (!call.backward && lse.defined()) {
      convert_stats(call, batch, lse, stats, spans, /*to_lse=*/true);
    }
  }
}

}  // namespace

const char* refuse_cudnn(const Context& ctx, const AttentionArgs& args) {
  return refuse(ctx, call_of(args));
}

void prepare_cudnn(Context& ctx, const AttentionArgs& args) {
  prepare(ctx, call_of(args));
}

std::int64_t cudnn_workspace(Context& ctx, const AttentionArgs& args) {
  return workspace_of(ctx, call_of(args));
}

void run_cudnn(Context& ctx, const AttentionArgs& args, std::byte* workspace) {
  run(ctx, call_of(args), args.lse, workspace);
}

const char* refuse_cudnn_grad(const Context& ctx, const AttentionGradArgs& args) {
  return refuse(ctx, call_of(args));
}

void prepare_cudnn_grad(Context& ctx, const AttentionGradArgs& args) {
  prepare(ctx, call_of(args));
}

std::int64_t cudnn_grad_workspace(Context& ctx, const AttentionGradArgs& args) {
  return workspace_of(ctx, call_of(args));
}

void run_cudnn_grad(Context& ctx, const AttentionGradArgs& args, std::byte* workspace) {
  run(ctx, call_of(args), args.lse, workspace);
}

}  // namespace caravan::ops::cuda

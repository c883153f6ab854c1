// How calls of attention become cuDNN's batches.
//
// Squares (a sequence sees itself) of equal length at equal distances are one batch as they stand.  Others, and rectangles
// (queries behind a cached beginning), are sorted into classes by length, each a batch of sequences whose lengths and
// begins stand in tensors; a batch holds as many as its scratch allows, because the deterministic backward of Hopper keeps
// scores of [batch, heads, length, length].  Statistics go through scratch in cuDNN's order, [batch, heads, length].
#include "caravan/ops/cuda/attention_cudnn.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <tuple>

#include "caravan/ops/cuda/attention_plans.h"
#include "caravan/ops/cuda/cudnn_graph.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/tensor/copy.h"
#include "caravan/tensor/cuda_memory.h"

namespace caravan::ops::cuda {

// One graph of cuDNN that a call runs: which ranges it computes, and how they lie.
struct CudnnBatch {
  bool ragged = false;
  bool rectangles = false;
  std::int64_t length = 0, key_length = 0;  // of each sequence, or at most
  std::int64_t size = 0;                    // sequences, with empty ones at the end of a ragged batch
  std::vector<std::size_t> members;         // of the list of ranges
  SdpaShape shape;
  std::shared_ptr<SdpaGraph> graph;  // null where there is no GPU
  Tensor lists;                      // lists_of() on the device; undefined until a call is prepared
};

// The calls of late, so that a layer finds what the layer before it had made.
class CudnnCalls {
 public:
  struct Kept {
    SdpaShape call;  // what all batches have in common
    std::vector<AttentionRange> ranges;
    Device device;
    std::vector<CudnnBatch> batches;
    std::string refusal;  // of cuDNN; empty where it serves
  };
  std::deque<Kept> kept;  // the newest first
};

namespace {

using Batch = CudnnBatch;

// Bytes of scores that a batch may keep.
constexpr std::int64_t kMostScoreBytes = std::int64_t{9} << 29;
constexpr std::int64_t kShortest = 128;       // of a class of lengths
constexpr std::int64_t kShortestKeys = 1024;  // the same of rectangles' keys, each four times the one before

std::int64_t length_of(const AttentionRange& range) {
  return range.query_end - range.query_begin;
}

std::int64_t keys_of(const AttentionRange& range) {
  return range.key_end - range.key_begin;
}

bool square(const AttentionRange& range) {
  return range.diagonal == 0 && keys_of(range) == length_of(range);
}

// The smallest begin * factor^n that holds `length`.
std::int64_t class_of(std::int64_t length, std::int64_t begin, std::int64_t factor) {
  while (begin < length) {
    begin *= factor;
  }
  return begin;
}

std::int64_t most_sequences(std::int64_t length, std::int64_t key_length, std::int64_t heads) {
  return std::max<std::int64_t>(1, kMostScoreBytes / (heads * length * key_length * 2));
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
  return std::ranges::all_of(
             ranges, [&](const auto& one) { return square(one) && length_of(one) == length_of(ranges[0]); }) &&
         equal_steps([](const AttentionRange& one) { return one.query_begin; }) &&
         equal_steps([](const AttentionRange& one) { return one.key_begin; });
}

// `members` in batches as large as scratch allows.
void cut(std::vector<Batch>& batches, const Batch& like, const std::vector<std::size_t>& members, std::int64_t heads) {
  const auto most = static_cast<std::size_t>(most_sequences(like.length, like.key_length, heads));
  for (std::size_t begin = 0; begin < members.size(); begin += most) {
    const std::size_t count = std::min(members.size() - begin, most);
    Batch batch = like;
    batch.members.assign(members.begin() + static_cast<std::ptrdiff_t>(begin),
                         members.begin() + static_cast<std::ptrdiff_t>(begin + count));
    // A power of two, so that batches of any number share plans; never more than scratch allows.
    batch.size = static_cast<std::int64_t>(like.ragged ? std::min(std::bit_ceil(count), most) : count);
    batches.push_back(std::move(batch));
  }
}

// `exact`: a batch of equal lengths is made for just this length; else for its class, so that prompts of any length share
// plans.
std::vector<Batch> batches_of(const std::vector<AttentionRange>& ranges, std::int64_t heads, bool exact) {
  // Whether rectangles, queries, keys.
  std::map<std::tuple<bool, std::int64_t, std::int64_t>, std::vector<std::size_t>> classes;
  const bool equal = exact && side_by_side(ranges);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const bool rectangle = !square(ranges[i]);
    const std::int64_t length = equal ? length_of(ranges[i]) : class_of(length_of(ranges[i]), kShortest, 2);
    classes[{rectangle, length, rectangle ? class_of(keys_of(ranges[i]), kShortestKeys, 4) : length}].push_back(i);
  }
  std::vector<Batch> batches;
  for (const auto& [sizes, members] : classes) {
    Batch like;
    like.ragged = !equal;
    std::tie(like.rectangles, like.length, like.key_length) = sizes;
    cut(batches, like, members, heads);
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

std::array<SdpaStrides*, kPlaces> strides_of(SdpaShape& shape) {
  return {&shape.query, &shape.key,     &shape.value, &shape.out,
          &shape.d_out, &shape.d_query, &shape.d_key, &shape.d_value};
}

// What all batches of a call have in common.
SdpaShape shape_of(const Context& ctx, const Call& call) {
  SdpaShape shape;
  shape.deterministic = ctx.deterministic || !call.backward;
  shape.backward = call.backward;
  shape.with_stats = call.with_stats;
  shape.dtype = call.tensors[kQuery].dtype();
  shape.heads = call.heads.heads;
  shape.kv_heads = call.heads.kv_heads;
  shape.head_dim = call.heads.head_dim;
  shape.scale = call.scale;
  const auto strides = strides_of(shape);
  for (std::size_t place = 0; place < static_cast<std::size_t>(call.places()); ++place) {
    strides[place]->row = call.tensors[place].row_stride();
  }
  return shape;
}

SdpaShape shape_of(const SdpaShape& common, const Call& call, const Batch& batch) {
  SdpaShape shape = common;
  shape.ragged = batch.ragged;
  shape.bottom_right = batch.rectangles;
  shape.batch = batch.size;
  shape.length = batch.length;
  shape.key_length = batch.key_length;
  const auto strides = strides_of(shape);
  for (int place = 0; place < call.places(); ++place) {
    std::int64_t step = of_keys(place) ? batch.key_length : batch.length;
    if (!batch.ragged && batch.members.size() > 1) {
      const AttentionRange& first = call.ranges[batch.members[0]];
      const AttentionRange& second = call.ranges[batch.members[1]];
      step = of_keys(place) ? second.key_begin - first.key_begin : second.query_begin - first.query_begin;
    }
    SdpaStrides& one = *strides[static_cast<std::size_t>(place)];
    one.batch = step * one.row;
  }
  return shape;
}

AttentionPlans& plans_of(Context& ctx) {
  CudaState& now = state(ctx);
  if (now.attention == nullptr) {
    now.attention = std::make_shared<AttentionPlans>();
  }
  return *now.attention;
}

// The graph of a shape, or none where cuDNN refuses it.  What it answered is kept.
std::shared_ptr<SdpaGraph> graph_of(Context& ctx, const SdpaShape& shape) {
  AttentionPlans& plans = plans_of(ctx);
  const auto found = plans.graphs.find(shape);
  if (found != plans.graphs.end()) {
    found->second.last_use = ++plans.graph_uses;
    return found->second.graph;
  }
  require_not_recording(ctx, "a graph of cuDNN");
  cuda_memory::use(ctx.allocator->device().index);  // a dry run asks it too
  std::shared_ptr<SdpaGraph> made;
  try {
    if (plans.cudnn == nullptr) {
      plans.cudnn = open_cudnn();
    }
    made = std::make_shared<SdpaGraph>(*plans.cudnn, shape);
    ++state(ctx).plans;
  } catch (const UnsupportedError& error) {
    plans.cudnn_refusal = error.what();
  }
  constexpr std::size_t kMost = 256;  // rows of any length: a shape each
  if (plans.graphs.size() >= kMost) {
    plans.graphs.erase(std::ranges::min_element(plans.graphs, {}, [](const auto& one) { return one.second.last_use; }));
  }
  plans.graphs[shape] = {made, ++plans.graph_uses};
  return made;
}

// The call's batches and their graphs, made where it was not seen lately.
CudnnCalls::Kept& kept_of(Context& ctx, const Call& call) {
  AttentionPlans& plans = plans_of(ctx);
  if (plans.cudnn_calls == nullptr) {
    plans.cudnn_calls = std::make_shared<CudnnCalls>();
  }
  std::deque<CudnnCalls::Kept>& kept = plans.cudnn_calls->kept;
  const SdpaShape common = shape_of(ctx, call);
  const Device device = ctx.allocator->device();
  const auto found = std::ranges::find_if(kept, [&](const CudnnCalls::Kept& one) {
    return one.call == common && one.device == device && one.ranges == call.ranges;
  });
  if (found != kept.end()) {
    return *found;
  }
  CudnnCalls::Kept made{
      common, call.ranges, device, batches_of(call.ranges, call.heads.heads, call.exact()), std::string()};
  for (Batch& batch : made.batches) {
    batch.shape = shape_of(common, call, batch);
    if (made.refusal.empty() && state(ctx).has_gpu) {
      batch.graph = graph_of(ctx, batch.shape);
      made.refusal = batch.graph == nullptr ? plans.cudnn_refusal : std::string();
    }
  }
  constexpr std::size_t kKept = 16;
  if (kept.size() >= kKept) {
    kept.pop_back();
  }
  kept.push_front(std::move(made));
  return kept.front();
}

// Why the ranges are none that cuDNN computes, or nullptr.
const char* refuse_ranges(const Call& call) {
  if (call.ranges.empty()) {
    return "no row sees another";
  }
  std::int64_t keys_end = 0;
  for (std::size_t i = 0; i < call.ranges.size(); ++i) {
    const AttentionRange& range = call.ranges[i];
    const bool rectangle = range.diagonal == keys_of(range) - length_of(range);
    if (!square(range) && (call.exact() || !rectangle)) {
      return "a range is not a causal square";
    }
    if (i > 0 && range.query_begin == call.ranges[i - 1].query_begin) {
      return "queries see several ranges";
    }
    // Each batch writes the gradients of its keys, and adds to nobody's.
    if (call.backward && range.key_begin < keys_end) {
      return "two ranges have the same keys";
    }
    keys_end = range.key_end;
  }
  return nullptr;
}

const char* refuse(const Context& ctx, const Call& call) {
  const DType dtype = call.tensors[kQuery].dtype();
  if (dtype != DType::kBF16 && dtype != DType::kF16) {
    return "cuDNN has attention for bf16 and f16";
  }
  if (call.heads.head_dim % 8 != 0 || call.heads.head_dim > 128) {
    return "head_dim is no multiple of 8 up to 128";
  }
  if (const char* reason = refuse_ranges(call)) {
    return reason;
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
  const CudnnCalls::Kept& kept = kept_of(const_cast<Context&>(ctx), call);
  return kept.refusal.empty() ? nullptr : kept.refusal.c_str();
}

// Of a batch: query lengths, key lengths [size], then for each place begins in elements [size + 1]; for the statistics the
// first row and the number of rows of each sequence.
std::vector<std::int32_t> lists_of(const Call& call, const Batch& batch) {
  std::vector<std::int32_t> values;
  const auto size = static_cast<std::size_t>(batch.size);
  const auto member = [&](std::size_t i) -> const AttentionRange& {
    return call.ranges[batch.members[std::min(i, batch.members.size() - 1)]];
  };
  const auto there = [&](std::size_t i) { return i < batch.members.size(); };
  const auto add = [&](std::int64_t value) { values.push_back(static_cast<std::int32_t>(value)); };
  for (std::size_t i = 0; i < size; ++i) {
    add(there(i) ? length_of(member(i)) : 0);
  }
  for (std::size_t i = 0; i < size; ++i) {
    add(there(i) ? keys_of(member(i)) : 0);
  }
  for (int place = 0; place < call.places(); ++place) {
    const std::int64_t stride = call.tensors[static_cast<std::size_t>(place)].row_stride();
    for (std::size_t i = 0; i <= size; ++i) {
      const AttentionRange& range = member(i);
      const std::int64_t begin = of_keys(place) ? range.key_begin : range.query_begin;
      const std::int64_t end = of_keys(place) ? range.key_end : range.query_end;
      add((there(i) ? begin : end) * stride);
    }
  }
  for (std::size_t i = 0; i < size; ++i) {
    add(there(i) ? member(i).query_begin : 0);
    add(there(i) ? length_of(member(i)) : 0);
  }
  return values;
}

void prepare(Context& ctx, const Call& call) {
  for (Batch& batch : kept_of(ctx, call).batches) {
    if (!batch.lists.defined()) {
      require_not_recording(ctx, "a list of attention ranges");
      ++state(ctx).plans;
      const std::vector<std::int32_t> values = lists_of(call, batch);
      batch.lists = ctx.allocate(DType::kI32, {static_cast<std::int64_t>(values.size())}, Segment::kWorkspace);
      copy_from_host(batch.lists, std::as_bytes(std::span(values)));
    }
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
  return call.backward ? rows * batch.key_length * 2 + rows * call.heads.head_dim * 4 * 3 : 0;
}

std::int64_t workspace_of(Context& ctx, const Call& call) {
  std::int64_t most = 1;
  for (const Batch& batch : kept_of(ctx, call).batches) {
    const std::int64_t own = batch.graph != nullptr ? batch.graph->workspace() : estimated(call, batch);
    most = std::max(most, stats_bytes(call, batch) + own);
  }
  return most;
}

// lse [rows, heads] <-> stats [batch, heads, length].  spans: the first row and the number of rows of each sequence.  A
// backward reads the statistics behind a sequence's end too: plus infinity makes their weights zero.
__global__ void stats_kernel(float* lse, float* stats, const std::int32_t* spans, std::int64_t batch,
                             std::int64_t heads, std::int64_t length, bool to_lse) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t sequence = at / (heads * length);
  if (sequence >= batch) {
    return;
  }
  const std::int64_t row = at / heads % length;
  const std::int64_t head = at % heads;
  float* const one = lse + (spans[2 * sequence] + row) * heads + head;
  float* const other = stats + (sequence * heads + head) * length + row;
  const bool inside = row < spans[2 * sequence + 1];
  if (!to_lse) {
    *other = inside ? *one : INFINITY;
  } else if (inside) {
    *one = *other;
  }
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
  launch("attention", stats_kernel, blocks_for(batch.size * batch.length * call.heads.heads, kThreads), kThreads, 0,
         elements<float>(lse), stats, spans, batch.size, call.heads.heads, batch.length, to_lse);
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
  for (const Batch& batch : kept_of(ctx, call).batches) {
    keep_for_graph(ctx, batch.graph);
    keep_for_graph(ctx, std::make_shared<const Tensor>(batch.lists));
    auto* const ints = reinterpret_cast<std::int32_t*>(batch.lists.address());
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
    batch.graph->run(p, workspace + stats_bytes(call, batch));
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

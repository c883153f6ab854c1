// Attention of one query a sequence over a cache, whose lengths stand on the device.
//
// Keys of a sequence are cut into `splits` stretches of equal length; a block takes one stretch for one kv head and all
// query heads of its group, so that every key and value is read once.  Within a block, a slot of lanes takes a key at a
// time, eight elements a lane, and keeps a running maximum, sum and output of its own (Dao et al. 2022); slots are merged at
// the end of the block, stretches by a second kernel.  All merges go in a fixed order.
#include <cmath>

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWide = 8;  // elements a lane holds of a head
template <typename T>
constexpr int kUnroll = sizeof(T) == 4 ? 2 : 4;  // keys that a slot has in flight

// What a kernel needs of a call.
template <typename T>
struct Inputs {
  Rows<T> out;
  Rows<const T> query, key, value;
  const std::int32_t* begins;
  const std::int32_t* lengths;
  std::int64_t max_length;
  int heads, kv_heads, head_dim;

  explicit Inputs(const CachedAttentionArgs& args)
      : out(args.out),
        query(args.query),
        key(args.key),
        value(args.value),
        begins(elements<const std::int32_t>(args.begins)),
        lengths(elements<const std::int32_t>(args.lengths)),
        max_length(args.max_length),
        heads(static_cast<int>(args.heads.heads)),
        kv_heads(static_cast<int>(args.heads.kv_heads)),
        head_dim(static_cast<int>(args.heads.head_dim)) {}

  __device__ std::int64_t length(std::int64_t sequence) const {
    const std::int64_t asked = lengths[sequence];
    return asked < 0 ? 0 : asked < max_length ? asked : max_length;
  }
};

template <typename T>
struct Call : Inputs<T> {
  using Inputs<T>::Inputs, Inputs<T>::heads, Inputs<T>::head_dim;
  float* partial = nullptr;  // [sequences, heads, splits, 2 + head_dim]: maximum, sum, output
  int splits = 1;
  float scale = 0.0F;  // of base 2: softmax weights are powers of two

  __device__ float* part(std::int64_t sequence, int head, int split) const {
    return partial + ((sequence * heads + head) * splits + split) * (2 + head_dim);
  }
};

template <typename T>
using Wide = Pack<T, kWide>;

// Merges (m, l, o) of another slot into this one's: softmax over both sets of keys.
__device__ inline void merge(float& m, float& l, float (&o)[kWide], float other_m, float other_l,
                             const float (&other_o)[kWide]) {
  const float top = fmaxf(m, other_m);
  const float mine = m == -INFINITY ? 0.0F : exp2f(m - top);
  const float theirs = other_m == -INFINITY ? 0.0F : exp2f(other_m - top);
  m = top;
  l = l * mine + other_l * theirs;
  for (int i = 0; i < kWide; ++i) {
    o[i] = o[i] * mine + other_o[i] * theirs;
  }
}

// kGroup: query heads that a block serves; more of a group go to further blocks of gridDim.z.  kFull: the head has an element
// for every place of its lanes; else those behind it count as zeros.
template <typename T, int kLanes, int kGroup, bool kFull>
__global__ void __launch_bounds__(kThreads) stretches_kernel(Call<T> call) {
  constexpr int kSlots = kThreads / kLanes;
  constexpr int kMostDim = kLanes * kWide;
  constexpr int kAhead = kUnroll<T>;
  const int dim = kFull ? kMostDim : call.head_dim;
  const int group = call.heads / call.kv_heads;
  const int parts = (group + kGroup - 1) / kGroup;
  const int kv_head = static_cast<int>(blockIdx.z) / parts;
  const int first_head = kv_head * group + static_cast<int>(blockIdx.z) % parts * kGroup;
  const int heads_here = min(kGroup, (kv_head + 1) * group - first_head);
  const std::int64_t sequence = blockIdx.x;
  const int slot = static_cast<int>(threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const bool holds = kFull || lane * kWide < dim;
  const std::int64_t length = call.length(sequence);
  const std::int64_t split = blockIdx.y;
  const std::int64_t from = call.begins[sequence] + length * split / call.splits;
  const std::int64_t to = call.begins[sequence] + length * (split + 1) / call.splits;

  float q[kGroup][kWide], m[kGroup], l[kGroup], o[kGroup][kWide];
#pragma unroll
  for (int h = 0; h < kGroup; ++h) {
    m[h] = -INFINITY;
    l[h] = 0.0F;
    const T* head = call.query[sequence] + (first_head + min(h, heads_here - 1)) * dim + lane * kWide;
    for (int i = 0; i < kWide; ++i) {
      q[h][i] = holds ? load(head[i]) * call.scale : 0.0F;
      o[h][i] = 0.0F;
    }
  }

  const std::int64_t column = static_cast<std::int64_t>(kv_head) * dim + lane * kWide;
  // All lanes of a warp walk the same number of rounds, since they shuffle together.
  for (std::int64_t round = from; round < to; round += kSlots * kAhead) {
    Wide<T> k[kAhead] = {}, v[kAhead] = {};
    bool there[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const std::int64_t at = round + u * kSlots + slot;
      there[u] = at < to;
      const std::int64_t row = there[u] ? at : from;
      if (holds) {
        k[u] = Wide<T>::at(call.key[row] + column);
        v[u] = Wide<T>::at(call.value[row] + column);
      }
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
#pragma unroll
      for (int h = 0; h < kGroup; ++h) {
        float score = 0.0F;
        for (int i = 0; i < kWide; ++i) {
          score += q[h][i] * load(k[u].element[i]);
        }
        for (int distance = kLanes / 2; distance > 0; distance /= 2) {
          score += __shfl_xor_sync(kAllLanes, score, distance);
        }
        if (there[u]) {
          const float top = fmaxf(m[h], score);
          const float before = exp2f(m[h] - top);  // 0 at the first key, whose m is minus infinity
          const float weight = exp2f(score - top);
          m[h] = top;
          l[h] = l[h] * before + weight;
          for (int i = 0; i < kWide; ++i) {
            o[h][i] = o[h][i] * before + weight * load(v[u].element[i]);
          }
        }
      }
    }
  }

  // The slots of a warp by shuffles, then the warps through shared memory.
  constexpr int kWarps = kThreads / kWarp;
  __shared__ float shared_m[kWarps], shared_l[kWarps], shared_o[kWarps][kMostDim];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll  // an index that is not known would put the heads' outputs into memory
  for (int h = 0; h < kGroup; ++h) {
#pragma unroll
    for (int distance = kLanes; distance < kWarp; distance *= 2) {
      float other_o[kWide];
      for (int i = 0; i < kWide; ++i) {
        other_o[i] = __shfl_xor_sync(kAllLanes, o[h][i], distance);
      }
      const float other_m = __shfl_xor_sync(kAllLanes, m[h], distance);
      const float other_l = __shfl_xor_sync(kAllLanes, l[h], distance);
      merge(m[h], l[h], o[h], other_m, other_l, other_o);
    }
    __syncthreads();  // the head before is read
    if (static_cast<int>(threadIdx.x) % kWarp < kLanes) {
      shared_m[warp] = m[h];
      shared_l[warp] = l[h];
      for (int i = 0; i < kWide; ++i) {
        shared_o[warp][lane * kWide + i] = o[h][i];
      }
    }
    __syncthreads();
    if (h >= heads_here) {
      continue;
    }
    float top = -INFINITY;
    for (int w = 0; w < kWarps; ++w) {
      top = fmaxf(top, shared_m[w]);
    }
    float share[kWarps];
    float sum = 0.0F;
    for (int w = 0; w < kWarps; ++w) {
      share[w] = shared_m[w] == -INFINITY ? 0.0F : exp2f(shared_m[w] - top);
      sum += shared_l[w] * share[w];
    }
    float* part = call.part(sequence, first_head + h, static_cast<int>(split));
    for (int i = static_cast<int>(threadIdx.x); i < dim; i += kThreads) {
      float output = 0.0F;
      for (int w = 0; w < kWarps; ++w) {
        output += shared_o[w][i] * share[w];
      }
      part[2 + i] = output;
    }
    if (threadIdx.x == 0) {
      part[0] = top;
      part[1] = sum;
    }
  }
}

template <typename T>
__global__ void merge_kernel(Call<T> call) {
  const std::int64_t sequence = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  float top = -INFINITY;
  for (int split = 0; split < call.splits; ++split) {
    top = fmaxf(top, call.part(sequence, head, split)[0]);
  }
  for (int i = static_cast<int>(threadIdx.x); i < call.head_dim; i += static_cast<int>(blockDim.x)) {
    float sum = 0.0F;
    float output = 0.0F;
    for (int split = 0; split < call.splits; ++split) {
      const float* part = call.part(sequence, head, split);
      const float share = part[0] == -INFINITY ? 0.0F : exp2f(part[0] - top);
      sum += part[1] * share;
      output += part[2 + i] * share;
    }
    call.out[sequence][static_cast<std::int64_t>(head) * call.head_dim + i] =
        round_to<T>(sum == 0.0F ? 0.0F : output / sum);  // no key, no sum; a NaN's is NaN
  }
}

// Any dtype, any head_dim, any alignment: a warp a query head, key after key.
template <typename T>
struct PlainCall : Inputs<T> {
  using Inputs<T>::Inputs;
  Real<T>* outputs = nullptr;  // [sequences, heads, head_dim]
  Real<T> scale = 0;
};

template <typename T>
__global__ void plain_kernel(PlainCall<T> call) {
  using R = Real<T>;
  const std::int64_t sequence = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t length = call.length(sequence);
  const std::int64_t column = static_cast<std::int64_t>(head / (call.heads / call.kv_heads)) * call.head_dim;
  const T* query = call.query[sequence] + static_cast<std::int64_t>(head) * call.head_dim;
  R* output = call.outputs + (sequence * call.heads + head) * call.head_dim;
  for (int i = lane; i < call.head_dim; i += kWarp) {
    output[i] = 0;
  }
  R m = -INFINITY;
  R l = 0;
  for (std::int64_t at = call.begins[sequence]; at < call.begins[sequence] + length; ++at) {
    R score = 0;
    for (int i = lane; i < call.head_dim; i += kWarp) {
      score += load(query[i]) * load(call.key[at][column + i]);
    }
    score = warp_sum(score) * call.scale;
    const R top = m > score ? m : score;
    const R before = exponential(m - top);
    const R weight = exponential(score - top);
    m = top;
    l = l * before + weight;
    for (int i = lane; i < call.head_dim; i += kWarp) {
      output[i] = output[i] * before + weight * load(call.value[at][column + i]);
    }
  }
  for (int i = lane; i < call.head_dim; i += kWarp) {
    call.out[sequence][static_cast<std::int64_t>(head) * call.head_dim + i] = round_to<T>(l == 0 ? R{0} : output[i] / l);
  }
}

constexpr int kMostSplits = 128;

// Twice as many blocks as there are multiprocessors, and no stretch shorter than a block's round where max_length is
// reached.
int splits_of(Context& ctx, const CachedAttentionArgs& args) {
  constexpr std::int64_t kShortest = 64;
  const std::int64_t others = args.query.rows() * args.heads.kv_heads;
  const std::int64_t wanted = 2 * state(ctx).multiprocessors / std::max<std::int64_t>(1, others);
  const std::int64_t most = std::max<std::int64_t>(1, args.max_length / kShortest);
  return static_cast<int>(std::clamp<std::int64_t>(wanted, 1, std::min<std::int64_t>(most, kMostSplits)));
}

std::int64_t split_workspace(Context& ctx, const CachedAttentionArgs& args) {
  return args.query.rows() * args.heads.heads * splits_of(ctx, args) * (2 + args.heads.head_dim) *
         static_cast<std::int64_t>(sizeof(float));
}

const char* refuse_split(const Context& /*ctx*/, const CachedAttentionArgs& args) {
  if (args.query.dtype() == DType::kF64) {
    return "f64 is served by the plain kernel";
  }
  constexpr std::int64_t kMostDim = kWarp * kWide;
  if (args.heads.head_dim % kWide != 0 || args.heads.head_dim > kMostDim) {
    return "head_dim is no multiple of 8 up to 256";
  }
  return wide(args.key) && wide(args.value) ? nullptr : "rows of keys or values do not begin at multiples of 16 bytes";
}

template <typename T, int kLanes, bool kFull>
void launch_stretches(const Call<T>& call, std::int64_t sequences) {
  const int group = call.heads / call.kv_heads;
  const auto run = [&]<int kGroup>() {
    const int parts = (group + kGroup - 1) / kGroup;
    const dim3 grid(static_cast<unsigned>(sequences), static_cast<unsigned>(call.splits),
                    static_cast<unsigned>(call.kv_heads * parts));
    launch("cached_attention", stretches_kernel<T, kLanes, kGroup, kFull>, grid, kThreads, 0, call);
  };
  if (group == 1) {
    run.template operator()<1>();
  } else if (group == 2) {
    run.template operator()<2>();
  } else {
    run.template operator()<4>();
  }
}

template <typename T>
void launch_stretches(const Call<T>& call, std::int64_t sequences) {
  constexpr int kFew = 8;
  constexpr int kSome = 16;
  if (call.head_dim == kFew * kWide) {
    launch_stretches<T, kFew, true>(call, sequences);
  } else if (call.head_dim < kFew * kWide) {
    launch_stretches<T, kFew, false>(call, sequences);
  } else if (call.head_dim == kSome * kWide) {
    launch_stretches<T, kSome, true>(call, sequences);
  } else if (call.head_dim < kSome * kWide) {
    launch_stretches<T, kSome, false>(call, sequences);
  } else {
    launch_stretches<T, kWarp, false>(call, sequences);
  }
}

template <typename T>
void run_split_typed(Context& ctx, const CachedAttentionArgs& args, std::byte* workspace) {
  constexpr double kLog2E = 1.4426950408889634;  // exp(x) = 2^(x log2 e)
  Call<T> call(args);
  call.partial = reinterpret_cast<float*>(workspace);
  call.splits = splits_of(ctx, args);
  call.scale = static_cast<float>(args.scale * kLog2E);
  const std::int64_t sequences = args.query.rows();
  launch_stretches(call, sequences);
  launch("cached_attention", merge_kernel<T>, dim3(static_cast<unsigned>(sequences), static_cast<unsigned>(call.heads)),
         static_cast<unsigned>(call.head_dim), 0, call);
}

void run_split(Context& ctx, const CachedAttentionArgs& args, std::byte* workspace) {
  if (args.query.dtype() == DType::kBF16) {
    run_split_typed<__nv_bfloat16>(ctx, args, workspace);
  } else if (args.query.dtype() == DType::kF32) {
    run_split_typed<float>(ctx, args, workspace);
  } else {
    run_split_typed<__half>(ctx, args, workspace);
  }
}

std::int64_t plain_workspace(Context& /*ctx*/, const CachedAttentionArgs& args) {
  return args.query.rows() * args.heads.heads * args.heads.head_dim * static_cast<std::int64_t>(sizeof(double));
}

void run_plain(Context& /*ctx*/, const CachedAttentionArgs& args, std::byte* workspace) {
  with_element(args.query.dtype(), [&]<typename T>() {
    PlainCall<T> call(args);
    call.outputs = reinterpret_cast<Real<T>*>(workspace);
    call.scale = static_cast<Real<T>>(args.scale);
    const dim3 grid(static_cast<unsigned>(args.query.rows()), static_cast<unsigned>(call.heads));
    launch("cached_attention", plain_kernel<T>, grid, kWarp, 0, call);
  });
}

constexpr Implementation<CachedAttentionArgs> kCachedAttention[] = {
    {"split", Backend::kCuda, Isa::kAvx2, refuse_split, split_workspace, run_split},
    {"plain", Backend::kCuda, Isa::kAvx2, nullptr, plain_workspace, run_plain},
};

}  // namespace

ImplementationList<CachedAttentionArgs> cached_attention_list() {
  return kCachedAttention;
}

}  // namespace caravan::ops::cuda

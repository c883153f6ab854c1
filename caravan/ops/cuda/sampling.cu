// Ids drawn from logits: one block a row.  Values are found by their bits, eight at a time from the top, in place of sorting;
// weights are whole numbers, so that atomic sums have no order.  Compiled without contraction (base/philox_arithmetic.h).
#include "caravan/ops/sampling.h"

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/sampling_arithmetic.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kBuckets = 256;

// atomicAdd has no overload for std::uint64_t where that is unsigned long.
using Sum = unsigned long long;

// Numbers in the order of the logits; -0 is 0.
__device__ inline unsigned key_of(float logit) {
  const float value = logit + 0.0F;
  unsigned bits = 0;
  memcpy(&bits, &value, sizeof(bits));
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

constexpr unsigned kMinusInfinity = 0x007fffffU;  // key_of(-INFINITY)

struct Parameters {
  const double* temperature;
  const std::int32_t* top_k;
  const double* top_p;
  const std::uint64_t* streams;
  const std::int32_t* positions;
};

// A row, and what the block's threads share about it.
template <typename T>
struct Row {
  const T* logits;
  Sum* weights;  // of every id, in global memory
  std::int64_t vocab;

  __device__ unsigned key(std::int64_t i) const { return key_of(static_cast<float>(logits[i])); }
};

// The largest key that `least` keys or more reach, counted from the top: the k-th largest.
template <typename T>
__device__ unsigned kth_largest(const Row<T>& row, std::int64_t k) {
  __shared__ unsigned counts[kBuckets];
  __shared__ unsigned prefix;
  __shared__ std::int64_t left;
  if (threadIdx.x == 0) {
    prefix = 0;
    left = k;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (unsigned b = threadIdx.x; b < kBuckets; b += blockDim.x) {
      counts[b] = 0;
    }
    __syncthreads();
    const unsigned above = shift == 24 ? 0 : ~0U << (shift + 8);
    for (std::int64_t i = threadIdx.x; i < row.vocab; i += blockDim.x) {
      const unsigned key = row.key(i);
      if ((key & above) == prefix) {
        atomicAdd(&counts[key >> shift & 0xffU], 1U);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned bucket = kBuckets - 1;
      while (counts[bucket] < left) {
        left -= counts[bucket--];
      }
      prefix |= bucket << shift;
    }
    __syncthreads();
  }
  return prefix;
}

// Where top_p cuts: tokens of smaller keys go, and of those with this key the first `gone`.
struct Cut {
  unsigned key = 0;
  Sum gone = 0;
};

template <typename T>
__device__ Cut cut_of(const Row<T>& row, Sum limit) {
  __shared__ Sum sums[kBuckets];
  __shared__ unsigned prefix;
  __shared__ Sum below;
  __shared__ Sum each;
  if (threadIdx.x == 0) {
    prefix = 0;
    below = 0;
    each = 0;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (unsigned b = threadIdx.x; b < kBuckets; b += blockDim.x) {
      sums[b] = 0;
    }
    __syncthreads();
    const unsigned above = shift == 24 ? 0 : ~0U << (shift + 8);
    for (std::int64_t i = threadIdx.x; i < row.vocab; i += blockDim.x) {
      const Sum weight = row.weights[i];
      const unsigned key = row.key(i);
      if (weight > 0 && (key & above) == prefix) {
        atomicAdd(&sums[key >> shift & 0xffU], weight);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned bucket = 0;
      while (below + sums[bucket] <= limit) {
        below += sums[bucket++];
      }
      prefix |= bucket << shift;
    }
    __syncthreads();
  }
  for (std::int64_t i = threadIdx.x; i < row.vocab; i += blockDim.x) {
    if (row.weights[i] > 0 && row.key(i) == prefix) {
      atomicMax(&each, row.weights[i]);  // all the same
    }
  }
  __syncthreads();
  return {prefix, (limit - below) / each};
}

// Sums over the threads before this one, and over all.
template <typename N>
struct Scan {
  N before;
  N all;
};

template <typename N>
__device__ Scan<N> scan(N mine) {
  __shared__ N of_thread[kThreads];
  __shared__ N all;
  __syncthreads();
  of_thread[threadIdx.x] = mine;
  __syncthreads();
  if (threadIdx.x == 0) {
    N sum = 0;
    for (unsigned t = 0; t < blockDim.x; ++t) {
      const N one = of_thread[t];
      of_thread[t] = sum;
      sum += one;
    }
    all = sum;
  }
  __syncthreads();
  return {of_thread[threadIdx.x], all};
}

// The largest logit: its key, the first id that has it, and whether there is a NaN.
struct Largest {
  unsigned key;
  std::int64_t id;
  bool nan;
};

template <typename T>
__device__ Largest largest_of(const Row<T>& row) {
  __shared__ unsigned key;
  __shared__ unsigned last_from_first;  // of ids counted from the end, so that the largest is the first
  __shared__ unsigned nan;
  if (threadIdx.x == 0) {
    key = 0;
    last_from_first = 0;
    nan = 0;
  }
  __syncthreads();
  unsigned mine = 0;
  bool mine_nan = false;
  for (std::int64_t i = threadIdx.x; i < row.vocab; i += blockDim.x) {
    const auto logit = static_cast<float>(row.logits[i]);
    mine_nan = mine_nan || logit != logit;
    mine = max(mine, key_of(logit));
  }
  atomicMax(&key, mine);
  atomicMax(&nan, mine_nan ? 1U : 0U);
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < row.vocab; i += blockDim.x) {
    if (row.key(i) == key) {
      atomicMax(&last_from_first, static_cast<unsigned>(row.vocab - i));
      break;
    }
  }
  __syncthreads();
  return {key, row.vocab - static_cast<std::int64_t>(last_from_first), nan != 0};
}

// Weights of all ids, 0 for what may not be drawn; their sum.
template <typename T>
__device__ Sum weigh(const Row<T>& row, const Largest& largest, unsigned least, double temperature) {
  const auto top = static_cast<double>(static_cast<float>(row.logits[largest.id]));
  Sum mine = 0;
  for (std::int64_t i = threadIdx.x; i < row.vocab; i += blockDim.x) {
    const unsigned key = row.key(i);
    Sum weight = 0;
    if (key >= least && key > kMinusInfinity) {
      const double below = key == largest.key ? 0.0 : static_cast<double>(static_cast<float>(row.logits[i])) - top;
      // Beyond this a weight is less than a step.
      constexpr double kLeast = -28.0;
      weight = below < kLeast * temperature ? 0 : static_cast<Sum>(exp(below / temperature) * kSamplingUnit);
    }
    row.weights[i] = weight;
    mine += weight;
  }
  __syncthreads();
  return scan(mine).all;
}

// The first id whose weights up to it, without what is cut, sum to more than the stream's value times all of them.
template <typename T>
__device__ void draw(const Row<T>& row, const Cut& cut, std::uint64_t seed, std::uint64_t name_hash,
                     std::uint64_t position, std::int32_t* id) {
  const std::int64_t each = (row.vocab + blockDim.x - 1) / blockDim.x;
  const std::int64_t begin = min(row.vocab, threadIdx.x * each);
  const std::int64_t end = min(row.vocab, begin + each);
  Sum equals = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    equals += row.weights[i] > 0 && row.key(i) == cut.key ? 1 : 0;
  }
  Sum rank = scan(equals).before;
  Sum mine = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    const unsigned key = row.key(i);
    const bool equal = row.weights[i] > 0 && key == cut.key;
    if (key < cut.key || (equal && rank < cut.gone)) {
      row.weights[i] = 0;
    }
    rank += equal ? 1 : 0;
    mine += row.weights[i];
  }
  const Scan<Sum> sums = scan(mine);
  const Sum target = sampling_target(seed, name_hash, position, sums.all);
  if (sums.before <= target && target < sums.before + mine) {
    Sum sum = sums.before;
    std::int64_t i = begin;
    while ((sum += row.weights[i]) <= target) {
      ++i;
    }
    *id = static_cast<std::int32_t>(i);
  }
}

template <typename T>
__global__ void sample_kernel(std::int32_t* ids, const T* logits, std::int64_t vocab, Sum* weights, Parameters by) {
  const std::int64_t r = blockIdx.x;
  const Row<T> row{logits + r * vocab, weights + r * vocab, vocab};
  const Largest largest = largest_of(row);
  const double temperature = by.temperature[r];
  if (largest.nan || largest.key <= kMinusInfinity || temperature == 0) {
    if (threadIdx.x == 0) {
      ids[r] = largest.nan || largest.key <= kMinusInfinity ? -1 : static_cast<std::int32_t>(largest.id);
    }
    return;
  }
  const std::int64_t k = by.top_k[r];
  const unsigned least = k > 0 && k < vocab ? kth_largest(row, k) : 0;
  const Sum total = weigh(row, largest, least, temperature);
  const Cut cut = by.top_p[r] < 1.0 ? cut_of(row, sampling_limit(by.top_p[r], total)) : Cut{};
  draw(row, cut, by.streams[2 * r], by.streams[2 * r + 1], static_cast<std::uint64_t>(by.positions[r]), ids + r);
}

std::int64_t workspace_of(Context& /*ctx*/, const SampleIdsArgs& args) {
  return args.logits.elements() * static_cast<std::int64_t>(sizeof(Sum));
}

void run_sample(Context& /*ctx*/, const SampleIdsArgs& args, std::byte* workspace) {
  const Parameters by{elements<const double>(args.by.temperature), elements<const std::int32_t>(args.by.top_k),
                      elements<const double>(args.by.top_p), elements<const std::uint64_t>(args.by.streams),
                      elements<const std::int32_t>(args.by.positions)};
  const auto start = [&]<typename T>() {
    launch("sample_ids", sample_kernel<T>, static_cast<unsigned>(args.logits.rows()), kThreads, 0,
           elements<std::int32_t>(args.ids), elements<const T>(args.logits), args.logits.columns(),
           reinterpret_cast<Sum*>(workspace), by);
  };
  if (args.logits.dtype() == DType::kF64) {
    start.template operator()<double>();
  } else {
    start.template operator()<float>();
  }
}

constexpr Implementation<SampleIdsArgs> kSample[] = {
    {"radix", Backend::kCuda, Isa::kAvx2, nullptr, workspace_of, run_sample},
};

}  // namespace

ImplementationList<SampleIdsArgs> sample_ids_list() {
  return kSample;
}

}  // namespace caravan::ops::cuda

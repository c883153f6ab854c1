// Rotary tables and their application: a thread a few pairs.
#include "caravan/ops/rope.h"

#include "caravan/ops/args.h"
#include "caravan/ops/cuda/element.h"
#include "caravan/ops/cuda/launch.h"
#include "caravan/ops/cuda/wide.h"

namespace caravan::ops::cuda {
namespace {

constexpr int kThreads = 256;

// S: the dtype of the tables; R: what their values are rounded to.  Angles are f32 and their cosines are good to double
// precision before they are rounded: there are few of them, and a position of thousands turns an error of the angle into
// one of the model (ops/rope.h).
template <typename S, typename R>
__global__ void tables_kernel(Rows<S> cosines, Rows<S> sines, const std::int32_t* positions,
                              Rows<const float> frequencies, const std::int32_t* kind, std::int64_t kinds,
                              std::int64_t rows, std::int64_t half, float scaling) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= rows * half) {
    return;
  }
  const std::int64_t row = at / half;
  const std::int64_t i = at % half;
  if (positions[row] < 0) {
    cosines[row][i] = S{1};
    sines[row][i] = S{0};
    return;
  }
  // A kind that is no row of frequencies cannot be an error here; it must not be a stranger's memory either.
  const bool known = kind[row] >= 0 && kind[row] < kinds;
  const float angle = known ? static_cast<float>(positions[row]) * frequencies[kind[row]][i] : NAN;
  const float c = static_cast<float>(cos(static_cast<double>(angle))) * scaling;
  const float s = static_cast<float>(sin(static_cast<double>(angle))) * scaling;
  cosines[row][i] = static_cast<S>(load(round_to<R>(static_cast<Real<R>>(c))));
  sines[row][i] = static_cast<S>(load(round_to<R>(static_cast<Real<R>>(s))));
}

void run_tables(Context& /*ctx*/, const RopeTablesArgs& args, std::byte* /*workspace*/) {
  const std::int64_t rows = args.cos.rows();
  const std::int64_t half = args.cos.columns();
  const auto start = [&]<typename S>() {
    with_element(args.rounded_to, [&]<typename R>() {
      launch("rope_tables", tables_kernel<S, R>, blocks_for(rows * half, kThreads), kThreads, 0, Rows<S>(args.cos),
             Rows<S>(args.sin), elements<const std::int32_t>(args.positions), Rows<const float>(args.frequencies),
             elements<const std::int32_t>(args.kind), args.frequencies.rows(), rows, half, args.attention_scaling);
    });
  };
  if (args.cos.dtype() == DType::kF64) {
    start.template operator()<double>();
  } else {
    start.template operator()<float>();
  }
}

// kCount pairs a thread: neighbours, of which the rotated halves are two packs.
template <typename T, int kCount>
__global__ void halves_kernel(Rows<T> y, Rows<const T> x, Rows<const Real<T>> cosines, Rows<const Real<T>> sines,
                              std::int64_t rows, std::int64_t heads, std::int64_t half, Real<T> sign) {
  using R = Real<T>;
  using Packed = Pack<T, kCount>;
  const std::int64_t packs = half / kCount;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= rows * heads * packs) {
    return;
  }
  const std::int64_t row = at / (heads * packs);
  const std::int64_t i = at % packs * kCount;
  const std::int64_t first = at / packs % heads * 2 * half + i;
  const Packed a = Packed::at(x[row] + first);
  const Packed b = Packed::at(x[row] + first + half);
  const auto cosine = Pack<R, kCount>::at(cosines[row] + i);
  const auto sine = Pack<R, kCount>::at(sines[row] + i);
  Packed turned_a, turned_b;
  for (int j = 0; j < kCount; ++j) {
    const R c = cosine.element[j];
    const R s = sign * sine.element[j];
    turned_a.element[j] = round_to<T>(load(a.element[j]) * c - load(b.element[j]) * s);
    turned_b.element[j] = round_to<T>(load(b.element[j]) * c + load(a.element[j]) * s);
  }
  turned_a.put(y[row] + first);
  turned_b.put(y[row] + first + half);
}

template <typename T>
__global__ void neighbours_kernel(Rows<T> y, Rows<const T> x, Rows<const Real<T>> cosines, Rows<const Real<T>> sines,
                                  std::int64_t rows, std::int64_t heads, std::int64_t half, Real<T> sign) {
  using R = Real<T>;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= rows * heads * half) {
    return;
  }
  const std::int64_t row = at / (heads * half);
  const std::int64_t i = at % half;
  const std::int64_t first = at / half % heads * 2 * half + 2 * i;
  const R a = load(x[row][first]);
  const R b = load(x[row][first + 1]);
  const R c = cosines[row][i];
  const R s = sign * sines[row][i];
  y[row][first] = round_to<T>(a * c - b * s);
  y[row][first + 1] = round_to<T>(b * c + a * s);
}

void run_rope(Context& /*ctx*/, const RopeArgs& args, std::byte* /*workspace*/) {
  const std::int64_t rows = args.x.rows();
  const std::int64_t half = args.cos.columns();
  const std::int64_t heads = args.x.columns() / (2 * half);
  const double sign = args.inverse ? -1.0 : 1.0;
  with_element(args.x.dtype(), [&]<typename T>() {
    using R = Real<T>;
    const Rows<const R> cosines(args.cos);
    const Rows<const R> sines(args.sin);
    if (args.pairing == RopePairing::kInterleaved) {
      launch("rope", neighbours_kernel<T>, blocks_for(rows * heads * half, kThreads), kThreads, 0, Rows<T>(args.y),
             Rows<const T>(args.x), cosines, sines, rows, heads, half, sign);
      return;
    }
    const bool all_wide = wide(args.x) && wide(args.y) && wide(args.cos) && wide(args.sin);
    with_width<T>(all_wide && half % kWideCount<T> == 0, [&]<int kCount>() {
      launch("rope", halves_kernel<T, kCount>, blocks_for(rows * heads * half / kCount, kThreads), kThreads, 0,
             Rows<T>(args.y), Rows<const T>(args.x), cosines, sines, rows, heads, half, sign);
    });
  });
}

constexpr Implementation<RopeTablesArgs> kTables[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_tables},
};
constexpr Implementation<RopeArgs> kRope[] = {
    {"rows", Backend::kCuda, Isa::kAvx2, nullptr, nullptr, run_rope},
};

}  // namespace

ImplementationList<RopeTablesArgs> rope_tables_list() {
  return kTables;
}

ImplementationList<RopeArgs> rope_list() {
  return kRope;
}

}  // namespace caravan::ops::cuda

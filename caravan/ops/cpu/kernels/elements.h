// How the kernels see the element types: everything is loaded as f32 and rounded once when stored.
//
// Needs one of the simd_*.h before it.
#pragma once

#include "caravan/ops/cpu/kernels/kernels.h"

namespace {

using caravan::ops::cpu::Element;
using caravan::ops::cpu::Rows;

struct F32 {
  using Stored = float;
  CARAVAN_INLINE static Vec load(const float* p) { return ::load(p); }
  CARAVAN_INLINE static Vec load(const float* p, std::int64_t n) { return ::load(p, first_lanes(n)); }
  CARAVAN_INLINE static void store(float* p, Vec a) { ::store(p, a); }
  CARAVAN_INLINE static void store(float* p, Vec a, std::int64_t n) { ::store(p, a, first_lanes(n)); }
  CARAVAN_INLINE static Vec round(Vec a) { return a; }
};

struct BF16 {
  using Stored = std::uint16_t;
  CARAVAN_INLINE static Vec load(const Stored* p) { return widen_bf16(load_halves(p)); }
  CARAVAN_INLINE static Vec load(const Stored* p, std::int64_t n) { return widen_bf16(load_halves(p, n)); }
  CARAVAN_INLINE static void store(Stored* p, Vec a) { store_halves(p, narrow_bf16(a)); }
  CARAVAN_INLINE static void store(Stored* p, Vec a, std::int64_t n) { store_halves(p, narrow_bf16(a), n); }
  CARAVAN_INLINE static Vec round(Vec a) { return round_bf16(a); }
};

// Rounds right below the normal range too, where the processor's own rounding may give 0.
struct ExactBF16 : BF16 {
  CARAVAN_INLINE static void store(Stored* p, Vec a) { store_halves(p, narrow_bf16_exactly(a)); }
  CARAVAN_INLINE static void store(Stored* p, Vec a, std::int64_t n) { store_halves(p, narrow_bf16_exactly(a), n); }
};
template <typename E>
CARAVAN_INLINE E exactly(E) {
  return {};
}
CARAVAN_INLINE ExactBF16 exactly(BF16) {
  return {};
}

struct F16 {
  using Stored = std::uint16_t;
  CARAVAN_INLINE static Vec load(const Stored* p) { return widen_f16(load_halves(p)); }
  CARAVAN_INLINE static Vec load(const Stored* p, std::int64_t n) { return widen_f16(load_halves(p, n)); }
  CARAVAN_INLINE static void store(Stored* p, Vec a) { store_halves(p, narrow_f16(a)); }
  CARAVAN_INLINE static void store(Stored* p, Vec a, std::int64_t n) { store_halves(p, narrow_f16(a), n); }
  CARAVAN_INLINE static Vec round(Vec a) { return widen_f16(narrow_f16(a)); }
};

// body(F32{}), body(BF16{}) or body(F16{}).
template <typename Body>
CARAVAN_INLINE void with_element(Element element, const Body& body) {
  switch (element) {
    case Element::kF32:
      body(F32{});
      break;
    case Element::kBF16:
      body(BF16{});
      break;
    case Element::kF16:
      body(F16{});
      break;
  }
}

template <typename E>
CARAVAN_INLINE typename E::Stored* row_of(const Rows& rows, std::int64_t row) {
  return static_cast<typename E::Stored*>(rows.data) + row * rows.stride;
}

// body(i, n) for the vectors [i, i + n) of a row: n is kLanes for all but a last, shorter one.
template <typename Whole, typename Part>
CARAVAN_INLINE void each_vector(std::int64_t count, const Whole& whole, const Part& part) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    whole(i);
  }
  if (i < count) {
    part(i, count - i);
  }
}

}  // namespace

// Eight floats at a time: the words that the kernels are written in, for x86-64-v3.  See simd_avx512.h for the twin.
//
// Included by one translation unit only; everything has internal linkage.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define CARAVAN_INLINE [[gnu::always_inline]] inline

namespace {

constexpr int kLanes = 8;
// Keys or value columns that the matrix kernels of attention hold in registers beside 6 rows: 6 * 2 sums, 2 operands,
// 1 broadcast of 16 registers.
constexpr int kTileVectors = 2;
constexpr int kTileRows = 6;

struct Vec {
  __m256 v;
};
struct Mask {
  __m256i v;
};

// Two bf16 that stand side by side, and a vector of such pairs: what a product of pairs takes.
struct Word {
  std::uint16_t halves[2];
};
struct Pairs {
  __m256i v;
};

CARAVAN_INLINE Vec set(float x) {
  return {_mm256_set1_ps(x)};
}
CARAVAN_INLINE Vec zero() {
  return {_mm256_setzero_ps()};
}
CARAVAN_INLINE Vec load(const float* p) {
  return {_mm256_loadu_ps(p)};
}
CARAVAN_INLINE void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.v);
}
CARAVAN_INLINE Vec operator+(Vec a, Vec b) {
  return {_mm256_add_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec operator-(Vec a, Vec b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec operator*(Vec a, Vec b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec operator/(Vec a, Vec b) {
  return {_mm256_div_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
// c - a b
CARAVAN_INLINE Vec fnma(Vec a, Vec b, Vec c) {
  return {_mm256_fnmadd_ps(a.v, b.v, c.v)};
}
// The second operand where either is NaN.
CARAVAN_INLINE Vec max(Vec a, Vec b) {
  return {_mm256_max_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec min(Vec a, Vec b) {
  return {_mm256_min_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec square_root(Vec a) {
  return {_mm256_sqrt_ps(a.v)};
}
CARAVAN_INLINE Vec round_to_integer(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

// Lanes [0, n).
CARAVAN_INLINE Mask first_lanes(std::int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane)};
}
CARAVAN_INLINE Vec select(Mask m, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(m.v))};
}
// Lanes outside the mask are not read and give 0.
CARAVAN_INLINE Vec load(const float* p, Mask m) {
  return {_mm256_maskload_ps(p, m.v)};
}
CARAVAN_INLINE void store(float* p, Vec a, Mask m) {
  _mm256_maskstore_ps(p, m.v, a.v);
}

CARAVAN_INLINE float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
CARAVAN_INLINE float maximum(Vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// p * 2^n for integral n in [-252, 254]; in two factors, so that results below the normal range are right.
CARAVAN_INLINE Vec scale_by_power(Vec p, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
  return {_mm256_mul_ps(_mm256_mul_ps(p.v, a), b)};
}

CARAVAN_INLINE Vec widen_bf16(__m128i bits) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
// The bits of a bf16 in the upper halves of the lanes: to nearest, ties to even, NaN stays NaN.
CARAVAN_INLINE __m256i rounded_bf16_bits(Vec a) {
  const __m256i word = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(word, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(word, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(word, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, quiet, nan);
}
CARAVAN_INLINE __m128i narrow_bf16(Vec a) {
  const __m256i high = _mm256_srli_epi32(rounded_bf16_bits(a), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
CARAVAN_INLINE __m128i narrow_bf16_exactly(Vec a) {
  return narrow_bf16(a);
}
CARAVAN_INLINE Vec round_bf16(Vec a) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
  return {_mm256_castsi256_ps(_mm256_and_si256(rounded_bf16_bits(a), upper))};
}
CARAVAN_INLINE Vec widen_f16(__m128i bits) {
  return {_mm256_cvtph_ps(bits)};
}
CARAVAN_INLINE __m128i narrow_f16(Vec a) {
  return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT);
}

CARAVAN_INLINE __m128i load_halves(const std::uint16_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
CARAVAN_INLINE void store_halves(std::uint16_t* p, __m128i bits) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bits);
}
// The first n of the lanes; the others are not touched in memory.
CARAVAN_INLINE __m128i load_halves(const std::uint16_t* p, std::int64_t n) {
  alignas(16) std::uint16_t lanes[8] = {};
  for (std::int64_t i = 0; i < n; ++i) {
    lanes[i] = p[i];
  }
  return _mm_load_si128(reinterpret_cast<const __m128i*>(lanes));
}
CARAVAN_INLINE void store_halves(std::uint16_t* p, __m128i bits, std::int64_t n) {
  alignas(16) std::uint16_t lanes[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(lanes), bits);
  for (std::int64_t i = 0; i < n; ++i) {
    p[i] = lanes[i];
  }
}

CARAVAN_INLINE Pairs load(const Word* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
// The first n of the lanes; the others are 0.
CARAVAN_INLINE Pairs load(const Word* p, std::int64_t n) {
  return {_mm256_maskload_epi32(reinterpret_cast<const int*>(p), first_lanes(n).v)};
}
CARAVAN_INLINE void store(Word* p, Pairs a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v);
}
// The bits, for moving pairs about as if they were floats.
CARAVAN_INLINE Vec as_floats(Pairs a) {
  return {_mm256_castsi256_ps(a.v)};
}
CARAVAN_INLINE Pairs set(const Word& word) {
  std::int32_t bits = 0;
  __builtin_memcpy(&bits, &word, sizeof bits);
  return {_mm256_set1_epi32(bits)};
}
// Lane by lane (low, high), rounded to bf16.
CARAVAN_INLINE Pairs pair_up(Vec low, Vec high) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
  return {
      _mm256_or_si256(_mm256_srli_epi32(rounded_bf16_bits(low), 16), _mm256_and_si256(rounded_bf16_bits(high), upper))};
}
// c + the products of a's and b's halves, lane by lane.
CARAVAN_INLINE Vec fma(Pairs a, Pairs b, Vec c) {
  const auto low = [](Pairs x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x.v, 16)); };
  const auto high = [](Pairs x) {
    return _mm256_castsi256_ps(_mm256_and_si256(x.v, _mm256_set1_epi32(static_cast<int>(0xffff0000U))));
  };
  return {_mm256_fmadd_ps(high(a), high(b), _mm256_fmadd_ps(low(a), low(b), c.v))};
}

// Pairs of neighbours: evens a0 a2 .. b0 b2 .., odds a1 a3 .. b1 b3 .., and back.
CARAVAN_INLINE void split_pairs(Vec a, Vec b, Vec& evens, Vec& odds) {
  const __m256 low = _mm256_permute2f128_ps(a.v, b.v, 0x20);
  const __m256 high = _mm256_permute2f128_ps(a.v, b.v, 0x31);
  const __m256 e = _mm256_shuffle_ps(low, high, 0x88);  // a0 a2 a4 a6 | b0 b2 b4 b6
  const __m256 o = _mm256_shuffle_ps(low, high, 0xdd);
  evens = {e};
  odds = {o};
}
CARAVAN_INLINE void join_pairs(Vec evens, Vec odds, Vec& a, Vec& b) {
  const __m256 low = _mm256_unpacklo_ps(evens.v, odds.v);   // a0..a3 | b0..b3
  const __m256 high = _mm256_unpackhi_ps(evens.v, odds.v);  // a4..a7 | b4..b7
  a = {_mm256_permute2f128_ps(low, high, 0x20)};
  b = {_mm256_permute2f128_ps(low, high, 0x31)};
}

// Half the lanes as doubles.
constexpr int kWideLanes = 4;
struct Wide {
  __m256d v;
};
CARAVAN_INLINE Wide wide_set(double x) {
  return {_mm256_set1_pd(x)};
}
CARAVAN_INLINE Wide wide_load(const float* p) {
  return {_mm256_cvtps_pd(_mm_loadu_ps(p))};
}
CARAVAN_INLINE void wide_store(float* p, Wide a) {
  _mm_storeu_ps(p, _mm256_cvtpd_ps(a.v));
}
CARAVAN_INLINE Wide operator+(Wide a, Wide b) {
  return {_mm256_add_pd(a.v, b.v)};
}
CARAVAN_INLINE Wide operator*(Wide a, Wide b) {
  return {_mm256_mul_pd(a.v, b.v)};
}
CARAVAN_INLINE Wide fma(Wide a, Wide b, Wide c) {
  return {_mm256_fmadd_pd(a.v, b.v, c.v)};
}
CARAVAN_INLINE Wide fnma(Wide a, Wide b, Wide c) {
  return {_mm256_fnmadd_pd(a.v, b.v, c.v)};
}
CARAVAN_INLINE Wide round_to_integer(Wide a) {
  return {_mm256_round_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
CARAVAN_INLINE double sum(Wide a) {
  const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
// By the quadrant n mod 4 of an integral n: (s, c) turned by n quarter circles.
CARAVAN_INLINE void turn_quarters(Wide n, Wide& s, Wide& c) {
  // Adding 1.5 * 2^52 leaves the integer in the low bits of the significand.
  const __m256i bits = _mm256_castpd_si256(_mm256_add_pd(n.v, _mm256_set1_pd(6755399441055744.0)));
  const __m256i one = _mm256_set1_epi64x(1);
  const __m256i odd = _mm256_cmpeq_epi64(_mm256_and_si256(bits, one), one);
  const __m256i two = _mm256_and_si256(_mm256_srli_epi64(bits, 1), one);
  const __m256d sine_sign = _mm256_castsi256_pd(_mm256_slli_epi64(two, 63));
  const __m256i cosine_flip = _mm256_and_si256(_mm256_srli_epi64(_mm256_add_epi64(bits, one), 1), one);
  const __m256d cosine_sign = _mm256_castsi256_pd(_mm256_slli_epi64(cosine_flip, 63));
  const __m256d turned_sine = _mm256_blendv_pd(s.v, c.v, _mm256_castsi256_pd(odd));
  const __m256d turned_cosine = _mm256_blendv_pd(c.v, s.v, _mm256_castsi256_pd(odd));
  s = {_mm256_xor_pd(turned_sine, sine_sign)};
  c = {_mm256_xor_pd(turned_cosine, cosine_sign)};
}

}  // namespace

// Sixteen floats at a time: the words that the kernels are written in, for x86-64-v4.  See simd_avx2.h for the twin.
//
// Included by one translation unit only; everything has internal linkage.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define CARAVAN_INLINE [[gnu::always_inline]] inline

namespace {

constexpr int kLanes = 16;
// Keys or value columns that the matrix kernels of attention hold in registers beside 6 rows: 6 * 4 sums, 4 operands,
// 1 broadcast of 32 registers.
constexpr int kTileVectors = 4;
constexpr int kTileRows = 6;

struct Vec {
  __m512 v;
};
struct Mask {
  __mmask16 v;
};

// Two bf16 that stand side by side, and a vector of such pairs: what a product of pairs takes.
struct Word {
  std::uint16_t halves[2];
};
struct Pairs {
  __m512i v;
};

CARAVAN_INLINE Vec set(float x) {
  return {_mm512_set1_ps(x)};
}
CARAVAN_INLINE Vec zero() {
  return {_mm512_setzero_ps()};
}
CARAVAN_INLINE Vec load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
CARAVAN_INLINE void store(float* p, Vec a) {
  _mm512_storeu_ps(p, a.v);
}
CARAVAN_INLINE Vec operator+(Vec a, Vec b) {
  return {_mm512_add_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec operator-(Vec a, Vec b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec operator*(Vec a, Vec b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec operator/(Vec a, Vec b) {
  return {_mm512_div_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
// c - a b
CARAVAN_INLINE Vec fnma(Vec a, Vec b, Vec c) {
  return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
}
// The second operand where either is NaN.
CARAVAN_INLINE Vec max(Vec a, Vec b) {
  return {_mm512_max_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec min(Vec a, Vec b) {
  return {_mm512_min_ps(a.v, b.v)};
}
CARAVAN_INLINE Vec square_root(Vec a) {
  return {_mm512_sqrt_ps(a.v)};
}
CARAVAN_INLINE Vec round_to_integer(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

// Lanes [0, n).
CARAVAN_INLINE Mask first_lanes(std::int64_t n) {
  return {static_cast<__mmask16>(n >= kLanes ? 0xffffU : (1U << n) - 1U)};
}
CARAVAN_INLINE Vec select(Mask m, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(m.v, b.v, a.v)};
}
// Lanes outside the mask are not read and give 0.
CARAVAN_INLINE Vec load(const float* p, Mask m) {
  return {_mm512_maskz_loadu_ps(m.v, p)};
}
CARAVAN_INLINE void store(float* p, Vec a, Mask m) {
  _mm512_mask_storeu_ps(p, m.v, a.v);
}

CARAVAN_INLINE float sum(Vec a) {
  return _mm512_reduce_add_ps(a.v);
}
CARAVAN_INLINE float maximum(Vec a) {
  return _mm512_reduce_max_ps(a.v);
}

// p * 2^n for integral n, right below the normal range too.
CARAVAN_INLINE Vec scale_by_power(Vec p, Vec n) {
  return {_mm512_scalef_ps(p.v, n.v)};
}

CARAVAN_INLINE Vec widen_bf16(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
// The bits of a bf16 in the upper halves of the lanes: to nearest, ties to even, NaN stays NaN.
CARAVAN_INLINE __m512i rounded_bf16_bits(Vec a) {
  const __m512i word = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(word, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(word, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, word, _mm512_set1_epi32(0x400000));
}
// Exact below the normal range too.
CARAVAN_INLINE __m256i narrow_bf16_exactly(Vec a) {
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_bf16_bits(a), 16));
}
// Where the processor has an instruction for it, what is below the normal range (2^-126) becomes 0.
CARAVAN_INLINE __m256i narrow_bf16(Vec a) {
#ifdef __AVX512BF16__
  __m256i halves;  // As an instruction: see fma() of pairs.
  __asm__("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(a.v));
  return halves;
#else
  return narrow_bf16_exactly(a);
#endif
}
CARAVAN_INLINE Vec round_bf16(Vec a) {
#ifdef __AVX512BF16__
  return widen_bf16(narrow_bf16(a));
#else
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  return {_mm512_castsi512_ps(_mm512_and_si512(rounded_bf16_bits(a), upper))};
#endif
}
CARAVAN_INLINE Vec widen_f16(__m256i bits) {
  return {_mm512_cvtph_ps(bits)};
}
CARAVAN_INLINE __m256i narrow_f16(Vec a) {
  return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT);
}

CARAVAN_INLINE __m256i load_halves(const std::uint16_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
CARAVAN_INLINE void store_halves(std::uint16_t* p, __m256i bits) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
}
// The first n of the lanes; the others are not touched in memory.
CARAVAN_INLINE __m256i load_halves(const std::uint16_t* p, std::int64_t n) {
  return _mm256_maskz_loadu_epi16(first_lanes(n).v, p);
}
CARAVAN_INLINE void store_halves(std::uint16_t* p, __m256i bits, std::int64_t n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n).v, bits);
}

CARAVAN_INLINE Pairs load(const Word* p) {
  return {_mm512_loadu_si512(p)};
}
// The first n of the lanes; the others are 0.
CARAVAN_INLINE Pairs load(const Word* p, std::int64_t n) {
  return {_mm512_maskz_loadu_epi32(first_lanes(n).v, p)};
}
CARAVAN_INLINE void store(Word* p, Pairs a) {
  _mm512_storeu_si512(p, a.v);
}
// The bits, for moving pairs about as if they were floats.
CARAVAN_INLINE Vec as_floats(Pairs a) {
  return {_mm512_castsi512_ps(a.v)};
}
CARAVAN_INLINE Pairs set(const Word& word) {
  std::int32_t bits = 0;
  __builtin_memcpy(&bits, &word, sizeof bits);
  return {_mm512_set1_epi32(bits)};
}
// Lane by lane (low, high), rounded to bf16 as narrow_bf16() does.
CARAVAN_INLINE Pairs pair_up(Vec low, Vec high) {
#ifdef __AVX512BF16__
  return {_mm512_or_si512(_mm512_cvtepu16_epi32(narrow_bf16(low)),
                          _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow_bf16(high)), 16))};
#else
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  return {
      _mm512_or_epi32(_mm512_srli_epi32(rounded_bf16_bits(low), 16), _mm512_and_epi32(rounded_bf16_bits(high), upper))};
#endif
}
// c + the products of a's and b's halves, lane by lane.
CARAVAN_INLINE Vec fma(Pairs a, Pairs b, Vec c) {
#ifdef __AVX512BF16__
  // As an instruction and not as an intrinsic: clang 16 crashes on vectors of its bf16 type in loops like ours.
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
  return c;
#else
  const auto low = [](Pairs x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x.v, 16)); };
  const auto high = [](Pairs x) {
    return _mm512_castsi512_ps(_mm512_and_epi32(x.v, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
  };
  return {_mm512_fmadd_ps(high(a), high(b), _mm512_fmadd_ps(low(a), low(b), c.v))};
#endif
}

// Pairs of neighbours: evens a0 a2 .. b0 b2 .., odds a1 a3 .. b1 b3 .., and back.
CARAVAN_INLINE void split_pairs(Vec a, Vec b, Vec& evens, Vec& odds) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  evens = {_mm512_permutex2var_ps(a.v, even, b.v)};
  odds = {_mm512_permutex2var_ps(a.v, odd, b.v)};
}
CARAVAN_INLINE void join_pairs(Vec evens, Vec odds, Vec& a, Vec& b) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  a = {_mm512_permutex2var_ps(evens.v, low, odds.v)};
  b = {_mm512_permutex2var_ps(evens.v, high, odds.v)};
}

// Half the lanes as doubles.
constexpr int kWideLanes = 8;
struct Wide {
  __m512d v;
};
CARAVAN_INLINE Wide wide_set(double x) {
  return {_mm512_set1_pd(x)};
}
CARAVAN_INLINE Wide wide_load(const float* p) {
  return {_mm512_cvtps_pd(_mm256_loadu_ps(p))};
}
CARAVAN_INLINE void wide_store(float* p, Wide a) {
  _mm256_storeu_ps(p, _mm512_cvtpd_ps(a.v));
}
CARAVAN_INLINE Wide operator+(Wide a, Wide b) {
  return {_mm512_add_pd(a.v, b.v)};
}
CARAVAN_INLINE Wide operator*(Wide a, Wide b) {
  return {_mm512_mul_pd(a.v, b.v)};
}
CARAVAN_INLINE Wide fma(Wide a, Wide b, Wide c) {
  return {_mm512_fmadd_pd(a.v, b.v, c.v)};
}
CARAVAN_INLINE Wide fnma(Wide a, Wide b, Wide c) {
  return {_mm512_fnmadd_pd(a.v, b.v, c.v)};
}
CARAVAN_INLINE Wide round_to_integer(Wide a) {
  return {_mm512_roundscale_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
CARAVAN_INLINE double sum(Wide a) {
  double lanes[kWideLanes];
  _mm512_storeu_pd(lanes, a.v);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}
// By the quadrant n mod 4 of an integral n: (s, c) turned by n quarter circles.
CARAVAN_INLINE void turn_quarters(Wide n, Wide& s, Wide& c) {
  // Adding 1.5 * 2^52 leaves the integer in the low bits of the significand.
  const __m512i bits = _mm512_castpd_si512(_mm512_add_pd(n.v, _mm512_set1_pd(6755399441055744.0)));
  const __m512i one = _mm512_set1_epi64(1);
  const __m512i two = _mm512_set1_epi64(2);
  const __mmask8 odd = _mm512_test_epi64_mask(bits, one);
  const __m512i sine_sign = _mm512_slli_epi64(_mm512_and_si512(bits, two), 62);
  const __m512i cosine_sign = _mm512_slli_epi64(_mm512_and_si512(_mm512_add_epi64(bits, one), two), 62);
  const __m512d turned_sine = _mm512_mask_blend_pd(odd, s.v, c.v);
  const __m512d turned_cosine = _mm512_mask_blend_pd(odd, c.v, s.v);
  s = {_mm512_xor_pd(turned_sine, _mm512_castsi512_pd(sine_sign))};
  c = {_mm512_xor_pd(turned_cosine, _mm512_castsi512_pd(cosine_sign))};
}

}  // namespace

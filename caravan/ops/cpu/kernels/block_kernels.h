// Weights in blocks of codes: products with activations as whole numbers, and blocks as numbers.
//
// Activations are rounded to codes in [-127, 127], 32 under one scale.  A product of a weight's 32 codes with them is
// exact in integers; scales and offsets meet it in f32.  Layouts of blocks: ggml/src/ggml-common.h of llama.cpp; the
// room quant reads the same ones number by number.
//
// Vectors have 32 bytes at every level: so many codes share a scale.  Needs one of the simd_*.h before it.
#pragma once

#include "caravan/ops/cpu/kernels/elements.h"

namespace caravan::ops::cpu {
namespace {

constexpr int kGroup = 32;  // codes under one scale of the activations
constexpr int kCodeLimit = 127;
// How far ahead of the codes in use their successors are asked for: what memory brings in the time that it takes to answer.
constexpr std::int64_t kAhead = 4096;
constexpr std::int64_t kLine = 64;

template <typename T>
CARAVAN_INLINE T read_as(const std::uint8_t* at) {
  T value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

// Rows of a tile lie one after the other, but are read side by side: the processor does not see where that leads, and
// from memory a product took two to three times as long without this.
template <std::int64_t kBytes>
CARAVAN_INLINE void ask_for(const std::uint8_t* bytes) {
#pragma GCC unroll 16
  for (std::int64_t line = 0; line < kBytes; line += kLine) {
    _mm_prefetch(reinterpret_cast<const char*>(bytes + line), _MM_HINT_T0);
  }
}

CARAVAN_INLINE float sum8(__m256 a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// Lane by lane the sum of four products of an unsigned and a signed byte.  No pair of them passes 2 * 128 * 127, which
// fits the 16 bits that a level without AVX512_VNNI has for it.
CARAVAN_INLINE __m256i four_products(__m256i unsigned_bytes, __m256i signed_bytes) {
#ifdef __AVX512VNNI__
  return _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned_bytes, signed_bytes);
#else
  return _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned_bytes, signed_bytes), _mm256_set1_epi16(1));
#endif
}

CARAVAN_INLINE __m256i load_bytes(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

// 32 codes of four bits: the low halves of 16 bytes, then the high ones.
CARAVAN_INLINE __m256i nibbles(const std::uint8_t* at) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

// The f16 at `at` in every lane.
CARAVAN_INLINE __m256 all_lanes_f16(const std::uint8_t* at) {
  return _mm256_cvtph_ps(_mm_set1_epi16(read_as<std::int16_t>(at)));
}

// What the product kernels ask of a type:
//   kGroups, kBytes     groups of 32 codes and bytes of a block
//   kSigned             whether codes() are signed; otherwise they are in [0, 127]
//   codes(k)            of group k
//   scale(k)            of its codes, for the lanes of four_products
//   add_offsets         adds to `sum` what the block's offsets make of the activations' sums of its groups
//   offset_total        of such a sum
// and the unpacking one:
//   numbers(k)          scales of the first and the second 16 codes, and the offset

struct Numbers {
  __m256 low, high, offset;
};

struct Q40 {
  static constexpr int kGroups = 1;
  static constexpr int kBytes = 18;
  static constexpr bool kSigned = false;
  const std::uint8_t* at;
  __m256 d;

  CARAVAN_INLINE explicit Q40(const std::uint8_t* block) : at(block), d(all_lanes_f16(block)) {}
  CARAVAN_INLINE __m256i codes(int) const { return nibbles(at + 2); }
  CARAVAN_INLINE __m256 scale(int) const { return d; }
  CARAVAN_INLINE __m256 add_offsets(const float* sums, __m256 sum) const {
    return _mm256_fmadd_ps(d, _mm256_broadcast_ss(sums), sum);
  }
  CARAVAN_INLINE static float offset_total(__m256 sum) { return -8.0F * _mm256_cvtss_f32(sum); }
  CARAVAN_INLINE Numbers numbers(int) const { return {d, d, _mm256_mul_ps(d, _mm256_set1_ps(-8.0F))}; }
};

struct Q41 {
  static constexpr int kGroups = 1;
  static constexpr int kBytes = 20;
  static constexpr bool kSigned = false;
  const std::uint8_t* at;
  __m256 both;  // d, m, d, m, ...

  CARAVAN_INLINE explicit Q41(const std::uint8_t* block)
      : at(block), both(_mm256_cvtph_ps(_mm_set1_epi32(read_as<std::int32_t>(block)))) {}
  CARAVAN_INLINE __m256i codes(int) const { return nibbles(at + 4); }
  CARAVAN_INLINE __m256 scale(int) const { return _mm256_moveldup_ps(both); }
  CARAVAN_INLINE __m256 add_offsets(const float* sums, __m256 sum) const {
    return _mm256_fmadd_ps(both, _mm256_broadcast_ss(sums), sum);
  }
  CARAVAN_INLINE static float offset_total(__m256 sum) { return _mm256_cvtss_f32(_mm256_movehdup_ps(sum)); }
  CARAVAN_INLINE Numbers numbers(int) const {
    const __m256 d = _mm256_moveldup_ps(both);
    return {d, d, _mm256_movehdup_ps(both)};
  }
};

struct Q80 {
  static constexpr int kGroups = 1;
  static constexpr int kBytes = 34;
  static constexpr bool kSigned = true;
  const std::uint8_t* at;
  __m256 d;

  CARAVAN_INLINE explicit Q80(const std::uint8_t* block) : at(block), d(all_lanes_f16(block)) {}
  CARAVAN_INLINE __m256i codes(int) const { return load_bytes(at + 2); }
  CARAVAN_INLINE __m256 scale(int) const { return d; }
  CARAVAN_INLINE __m256 add_offsets(const float*, __m256 sum) const { return sum; }
  CARAVAN_INLINE static float offset_total(__m256) { return 0.0F; }
  CARAVAN_INLINE Numbers numbers(int) const { return {d, d, _mm256_setzero_ps()}; }
};

struct Q4K {
  static constexpr int kGroups = 8;
  static constexpr int kBytes = 144;
  static constexpr bool kSigned = false;
  const std::uint8_t* at;
  __m256 offsets;
  alignas(32) float scales[8];
  alignas(32) float lows[8];

  // Six bits each: the first four scales and offsets in the low bits of bytes 0 to 3 and 4 to 7, the low halves of the
  // others in bytes 8 to 11, their high two bits on top of the first eight bytes.
  CARAVAN_INLINE explicit Q4K(const std::uint8_t* block) : at(block) {
    const auto a = read_as<std::uint32_t>(block + 4);
    const auto b = read_as<std::uint32_t>(block + 8);
    const auto c = read_as<std::uint32_t>(block + 12);
    const std::uint32_t scale_low = a & 0x3f3f3f3fU;
    const std::uint32_t scale_high = (c & 0x0f0f0f0fU) | ((a >> 6) & 0x03030303U) << 4;
    const std::uint32_t offset_low = b & 0x3f3f3f3fU;
    const std::uint32_t offset_high = ((c >> 4) & 0x0f0f0f0fU) | ((b >> 6) & 0x03030303U) << 4;
    const auto widen = [](std::uint32_t low, std::uint32_t high) {
      return _mm256_cvtepi32_ps(
          _mm256_cvtepu8_epi32(_mm_set_epi32(0, 0, static_cast<int>(high), static_cast<int>(low))));
    };
    _mm256_store_ps(scales, _mm256_mul_ps(all_lanes_f16(block), widen(scale_low, scale_high)));
    offsets = _mm256_mul_ps(all_lanes_f16(block + 2), widen(offset_low, offset_high));
    _mm256_store_ps(lows, offsets);
  }
  CARAVAN_INLINE __m256i codes(int k) const {
    const __m256i bytes = load_bytes(at + 16 + k / 2 * 32);
    return _mm256_and_si256(k % 2 == 0 ? bytes : _mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15));
  }
  CARAVAN_INLINE __m256 scale(int k) const { return _mm256_broadcast_ss(scales + k); }
  CARAVAN_INLINE __m256 add_offsets(const float* sums, __m256 sum) const {
    return _mm256_fnmadd_ps(offsets, _mm256_loadu_ps(sums), sum);
  }
  CARAVAN_INLINE static float offset_total(__m256 sum) { return sum8(sum); }
  CARAVAN_INLINE Numbers numbers(int k) const { return {scale(k), scale(k), _mm256_set1_ps(-lows[k])}; }
};

struct Q6K {
  static constexpr int kGroups = 8;
  static constexpr int kBytes = 210;
  static constexpr bool kSigned = true;
  const std::uint8_t* at;
  alignas(32) float scales[16];

  CARAVAN_INLINE explicit Q6K(const std::uint8_t* block) : at(block) {
    const __m256 d = all_lanes_f16(block + 208);
    for (int half = 0; half < 2; ++half) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 192 + 8 * half));
      _mm256_store_ps(scales + 8 * half, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))));
    }
  }
  CARAVAN_INLINE __m256i codes(int k) const {
    const int j = k % 4;  // of the stretches of 32 that share 32 bytes of high bits
    const __m256i low_bytes = load_bytes(at + k / 4 * 64 + j % 2 * 32);
    const __m256i high_bytes = load_bytes(at + 128 + k / 4 * 32);
    const __m256i low = _mm256_and_si256(j < 2 ? low_bytes : _mm256_srli_epi16(low_bytes, 4), _mm256_set1_epi8(15));
    const __m256i high = j == 0   ? _mm256_slli_epi16(high_bytes, 4)
                         : j == 1 ? _mm256_slli_epi16(high_bytes, 2)
                         : j == 2 ? high_bytes
                                  : _mm256_srli_epi16(high_bytes, 2);
    return _mm256_sub_epi8(_mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(0x30))), _mm256_set1_epi8(32));
  }
  CARAVAN_INLINE __m256 scale(int k) const {
    return _mm256_set_m128(_mm_broadcast_ss(scales + 2 * k + 1), _mm_broadcast_ss(scales + 2 * k));
  }
  CARAVAN_INLINE __m256 add_offsets(const float*, __m256 sum) const { return sum; }
  CARAVAN_INLINE static float offset_total(__m256) { return 0.0F; }
  CARAVAN_INLINE Numbers numbers(int k) const {
    return {_mm256_broadcast_ss(scales + 2 * k), _mm256_broadcast_ss(scales + 2 * k + 1), _mm256_setzero_ps()};
  }
};

// body.operator()<Q40>() and so on.
template <typename Body>
CARAVAN_INLINE void with_codes(BlockCodes type, const Body& body) {
  switch (type) {
    case BlockCodes::kQ40:
      body.template operator()<Q40>();
      break;
    case BlockCodes::kQ41:
      body.template operator()<Q41>();
      break;
    case BlockCodes::kQ80:
      body.template operator()<Q80>();
      break;
    case BlockCodes::kQ4K:
      body.template operator()<Q4K>();
      break;
    case BlockCodes::kQ6K:
      body.template operator()<Q6K>();
      break;
  }
}

// 32 numbers to codes, their scale and scale * sum of codes.  A group that holds NaN or infinity gets the scale NaN; one
// whose magnitudes are all below 1e-30 is taken for zeros, since 127 over it might overflow.
CARAVAN_INLINE void code_group(const float* x, std::int8_t* codes, float* scale, float* scaled_sum) {
  constexpr float kLeast = 1e-30F;
  const __m256 sign = _mm256_set1_ps(-0.0F);
  __m256 v[4];
  __m256 largest = _mm256_setzero_ps();
  __m256 poison = _mm256_setzero_ps();
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_loadu_ps(x + 8 * i);
    largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, v[i]));
    poison = _mm256_fmadd_ps(v[i], _mm256_setzero_ps(), poison);
  }
  __m128 top = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps(largest, 1));
  top = _mm_max_ps(top, _mm_movehl_ps(top, top));
  const float most = _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
  const bool counts = most > kLeast;
  const __m256 inverse = _mm256_set1_ps(counts ? static_cast<float>(kCodeLimit) / most : 0.0F);
  __m256i whole[4];
  for (int i = 0; i < 4; ++i) {
    whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
  }
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
  const __m256i in_order = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), in_order);
  const __m256 fours = _mm256_cvtepi32_ps(four_products(_mm256_set1_epi8(1), in_order));
  *scale = (counts ? most / static_cast<float>(kCodeLimit) : 0.0F) + sum8(poison);
  *scaled_sum = *scale * sum8(fours);
}

void code_rows(const CodeRows& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&]<typename E>(E) {
    const std::int64_t groups = args.coded.columns / kGroup;
    for (std::int64_t row = begin; row < end; ++row) {
      const typename E::Stored* x = row_of<E>(args.x, row);
      for (std::int64_t g = 0; g < groups; ++g) {
        float values[kGroup];
        for (int i = 0; i < kGroup; i += kLanes) {
          store(values + i, E::load(x + g * kGroup + i));
        }
        code_group(values, args.coded.codes + row * args.coded.columns + g * kGroup,
                   args.coded.scales + row * groups + g, args.coded.sums + row * groups + g);
      }
    }
  });
}

// The products of R rows of the weight with T rows of activations.
template <typename B, int R, int T>
CARAVAN_INLINE void block_tile(const BlockProduct& args, std::int64_t row, std::int64_t token) {
  const std::int64_t groups = args.x.columns / kGroup;
  const std::uint8_t* at = static_cast<const std::uint8_t*>(args.blocks) + row * args.row_bytes;
  const std::int8_t* codes = args.x.codes + token * args.x.columns;
  const float* scales = args.x.scales + token * groups;
  const float* x_sums = args.x.sums + token * groups;
  __m256 sums[R][T];
  __m256 offsets[R][T];
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < T; ++t) {
      sums[r][t] = _mm256_setzero_ps();
      offsets[r][t] = _mm256_setzero_ps();
    }
  }
  const std::uint8_t* ahead = at + kAhead;
  for (std::int64_t g = 0; g < groups; g += B::kGroups) {
    ask_for<R * B::kBytes>(ahead);
    ahead += R * B::kBytes;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const B block(at + r * args.row_bytes);
#pragma GCC unroll 8
      for (int k = 0; k < B::kGroups; ++k) {
        const __m256i w = block.codes(k);
        const __m256i magnitudes = B::kSigned ? _mm256_abs_epi8(w) : w;
        const __m256 w_scale = block.scale(k);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          const __m256i x = load_bytes(codes + t * args.x.columns + (g + k) * kGroup);
          const __m256i products = four_products(magnitudes, B::kSigned ? _mm256_sign_epi8(x, w) : x);
          const __m256 scale = _mm256_mul_ps(w_scale, _mm256_broadcast_ss(scales + t * groups + g + k));
          sums[r][t] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(products), sums[r][t]);
        }
      }
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        offsets[r][t] = block.add_offsets(x_sums + t * groups + g, offsets[r][t]);
      }
    }
    at += B::kBytes;
  }
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < T; ++t) {
      args.y[(token + t) * args.y_stride + row + r] = sum8(sums[r][t]) + B::offset_total(offsets[r][t]);
    }
  }
}

// All rows [begin, end) for T tokens: as many rows at a time as leave their sums in registers.
template <typename B, int T>
CARAVAN_INLINE void block_strip(const BlockProduct& args, std::int64_t begin, std::int64_t end, std::int64_t token) {
  constexpr int kRows = 4 / T;
  std::int64_t row = begin;
  for (; row + kRows <= end; row += kRows) {
    block_tile<B, kRows, T>(args, row, token);
  }
  for (; row < end; ++row) {
    block_tile<B, 1, T>(args, row, token);
  }
}

void block_product(const BlockProduct& args, std::int64_t begin, std::int64_t end) {
  with_codes(args.type, [&]<typename B>() {
    std::int64_t token = 0;
    for (; token + 4 <= args.tokens; token += 4) {
      block_strip<B, 4>(args, begin, end, token);
    }
    if (args.tokens - token >= 2) {
      block_strip<B, 2>(args, begin, end, token);
      token += 2;
    }
    if (token < args.tokens) {
      block_strip<B, 1>(args, begin, end, token);
    }
  });
}

// 8 bytes to numbers.
template <bool kSigned>
CARAVAN_INLINE __m256 widen_codes(const std::int8_t* codes, __m256 scale, __m256 offset) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes));
  const __m256i whole = kSigned ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, offset);
}

template <typename B, typename E>
CARAVAN_INLINE void unpack_block(const std::uint8_t* at, typename E::Stored* y) {
  const B block(at);
#pragma GCC unroll 8
  for (int k = 0; k < B::kGroups; ++k) {
    alignas(32) std::int8_t codes[kGroup];
    alignas(64) float values[kGroup];
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes), block.codes(k));
    const Numbers numbers = block.numbers(k);
    _mm256_store_ps(values, widen_codes<B::kSigned>(codes, numbers.low, numbers.offset));
    _mm256_store_ps(values + 8, widen_codes<B::kSigned>(codes + 8, numbers.low, numbers.offset));
    _mm256_store_ps(values + 16, widen_codes<B::kSigned>(codes + 16, numbers.high, numbers.offset));
    _mm256_store_ps(values + 24, widen_codes<B::kSigned>(codes + 24, numbers.high, numbers.offset));
    for (int i = 0; i < kGroup; i += kLanes) {
      E::store(y + k * kGroup + i, load(values + i));
    }
  }
}

void unpack_blocks(const UnpackBlocks& args, std::int64_t begin, std::int64_t end) {
  with_codes(args.type, [&]<typename B>() {
    with_element(args.element, [&]<typename E>(E) {
      for (std::int64_t row = begin; row < end; ++row) {
        const std::uint8_t* at = static_cast<const std::uint8_t*>(args.blocks) + row * args.row_bytes;
        typename E::Stored* y = row_of<E>(args.y, row);
        for (std::int64_t i = 0; i < args.columns; i += B::kGroups * kGroup) {
          unpack_block<B, E>(at, y + i);
          at += B::kBytes;
        }
      }
    });
  });
}

// The products of R rows of numbers with T rows of f32 activations.
template <typename E, int R, int T>
CARAVAN_INLINE void number_tile(const NumberProduct& args, std::int64_t row, std::int64_t token) {
  const typename E::Stored* w[R];
  const float* x[T];
  Vec sums[R][T];
  for (int r = 0; r < R; ++r) {
    w[r] = row_of<E>(args.w, row + r);
    for (int t = 0; t < T; ++t) {
      sums[r][t] = zero();
    }
  }
  for (int t = 0; t < T; ++t) {
    x[t] = args.x + (token + t) * args.x_stride;
  }
  constexpr std::int64_t kStored = sizeof(typename E::Stored);
  const std::uint8_t* ahead = reinterpret_cast<const std::uint8_t*>(w[0]) + kAhead;
  each_vector(
      args.columns,
      [&](std::int64_t i) {
        ask_for<R * kLanes * kStored>(ahead + R * i * kStored);
        for (int r = 0; r < R; ++r) {
          const Vec a = E::load(w[r] + i);
          for (int t = 0; t < T; ++t) {
            sums[r][t] = fma(a, load(x[t] + i), sums[r][t]);
          }
        }
      },
      [&](std::int64_t i, std::int64_t n) {
        for (int r = 0; r < R; ++r) {
          const Vec a = E::load(w[r] + i, n);
          for (int t = 0; t < T; ++t) {
            sums[r][t] = fma(a, F32::load(x[t] + i, n), sums[r][t]);
          }
        }
      });
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < T; ++t) {
      float& y = args.y[(token + t) * args.y_stride + row + r];
      y = sum(sums[r][t]) + (args.add ? y : 0.0F);
    }
  }
}

template <typename E, int T>
CARAVAN_INLINE void number_strip(const NumberProduct& args, std::int64_t begin, std::int64_t end, std::int64_t token) {
  constexpr int kRows = 4 / T;
  std::int64_t row = begin;
  for (; row + kRows <= end; row += kRows) {
    number_tile<E, kRows, T>(args, row, token);
  }
  for (; row < end; ++row) {
    number_tile<E, 1, T>(args, row, token);
  }
}

void number_product(const NumberProduct& args, std::int64_t begin, std::int64_t end) {
  with_element(args.element, [&]<typename E>(E) {
    std::int64_t token = 0;
    for (; token + 2 <= args.tokens; token += 2) {
      number_strip<E, 2>(args, begin, end, token);
    }
    if (token < args.tokens) {
      number_strip<E, 1>(args, begin, end, token);
    }
  });
}

}  // namespace
}  // namespace caravan::ops::cpu

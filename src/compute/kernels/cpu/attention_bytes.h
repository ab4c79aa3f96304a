// Included by attention.inc alone: blocks whose elements are bytes. Writing them, and making of them what the
// products read: every value of fp8 and int8 is exact in bfloat16, so the scales need not be multiplied in
// there. They meet the scores (keys) and the probabilities (values), 64 of each a row instead of 64 *
// head_dim.
#pragma once

#include "compute/kernels/cpu/attention.h"
#include "compute/kernels/cpu/attention_blocks.h"
#include "compute/kernels/cpu/vec.h"

namespace fd::cpu::FD_ISA_NS {
namespace {

// Rows whose largest value is smaller are zeros: their scale would have no inverse.
constexpr float kSmallestRow = 1e-30f;

// The largest byte's value.
template <DType B>
constexpr float kMostOfBytes = B == DType::kInt8 ? 127.0f : 448.0f;

#if defined(__AVX512F__)
// kWidth bytes. An fp8 value has the bits of a float16 of 2^-8 times its size.
template <DType B>
inline Vec WidenBytes(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  if constexpr (B == DType::kInt8) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  } else {
    const __m256i wide = _mm256_cvtepi8_epi16(bytes);  // the sign goes up to bit 15
    const __m256i sign = _mm256_and_si256(wide, _mm256_set1_epi16(static_cast<int16_t>(0x8000)));
    const __m256i rest = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)), 7);
    return _mm512_cvtph_ps(_mm256_or_si256(sign, rest));
  }
}
// 2 * kWidth bytes of fp8 as bfloat16, by their bits: the exponent's bias grows by 120, and what is below
// the normal values, multiples of 2^-9, comes from a table.
inline Vec WidenFloat8Pairs(const uint8_t* p) {
  const __m512i table =
      _mm512_zextsi128_si512(_mm_setr_epi16(0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60));
  const __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  const __m512i rest = _mm512_and_si512(_mm512_slli_epi16(wide, 4), _mm512_set1_epi16(0x7f0));
  const __m512i normal = _mm512_add_epi16(rest, _mm512_set1_epi16(120 << 7));
  const __mmask32 small = _mm512_testn_epi16_mask(wide, _mm512_set1_epi16(0x78));
  const __m512i bits = _mm512_mask_permutexvar_epi16(normal, small, wide, table);
  const __m512i sign = _mm512_and_si512(wide, _mm512_set1_epi16(static_cast<int16_t>(0x8000)));
  return _mm512_castsi512_ps(_mm512_or_si512(bits, sign));
}
// The upper halves of all lanes, in order: bfloat16 where the lower halves are 0.
inline Vec UpperHalves(Vec first, Vec second) {
  const __m512i odd = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29,
                                       27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_castsi512_ps(
      _mm512_permutex2var_epi16(_mm512_castps_si512(first), odd, _mm512_castps_si512(second)));
}
// Values of at most kMostOfBytes, rounded to the nearest byte's, ties to even.
template <DType B>
inline void RoundToBytes(uint8_t* out, Vec v) {
  __m512i code;
  if constexpr (B == DType::kInt8) {
    code = _mm512_cvtps_epi32(v);
  } else {
    const __m512i bits = _mm512_castps_si512(AbsV(v));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 20), _mm512_set1_epi32(1));
    const __m512i normal = _mm512_sub_epi32(
        _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7ffff))), 20),
        _mm512_set1_epi32(120 << 3));
    // Multiples of 2^-9 below the smallest normal value, 2^-6: the unit of 2^14's mantissa.
    const __m512i small = _mm512_sub_epi32(_mm512_castps_si512(AddV(AbsV(v), Set1(16384.0f))),
                                           _mm512_castps_si512(Set1(16384.0f)));
    const __mmask16 is_small = _mm512_cmp_ps_mask(AbsV(v), Set1(0.015625f), _CMP_LT_OQ);
    code = _mm512_mask_mov_epi32(_mm512_min_epi32(normal, _mm512_set1_epi32(0x7e)), is_small, small);
    const __m512i sign = _mm512_srli_epi32(_mm512_castps_si512(v), 31);
    code = _mm512_or_si512(code, _mm512_slli_epi32(sign, 7));
  }
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(code));
}
#else
template <DType B>
inline Vec WidenBytes(const uint8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  if constexpr (B == DType::kInt8) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  } else {
    const __m128i wide = _mm_cvtepi8_epi16(bytes);
    const __m128i sign = _mm_and_si128(wide, _mm_set1_epi16(static_cast<int16_t>(0x8000)));
    const __m128i rest = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x7f)), 7);
    return _mm256_cvtph_ps(_mm_or_si128(sign, rest));
  }
}
inline Vec UpperHalves(Vec first, Vec second) {
  const __m256i halves = _mm256_packus_epi32(_mm256_srli_epi32(_mm256_castps_si256(first), 16),
                                             _mm256_srli_epi32(_mm256_castps_si256(second), 16));
  return _mm256_castsi256_ps(_mm256_permute4x64_epi64(halves, 0xD8));
}
template <DType B>
inline void RoundToBytes(uint8_t* out, Vec v) {
  __m256i code;
  if constexpr (B == DType::kInt8) {
    code = _mm256_and_si256(_mm256_cvtps_epi32(v), _mm256_set1_epi32(0xff));
  } else {
    const __m256i bits = _mm256_castps_si256(AbsV(v));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(1));
    const __m256i normal = _mm256_sub_epi32(
        _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7ffff))), 20),
        _mm256_set1_epi32(120 << 3));
    const __m256i small = _mm256_sub_epi32(_mm256_castps_si256(AddV(AbsV(v), Set1(16384.0f))),
                                           _mm256_castps_si256(Set1(16384.0f)));
    const __m256i is_small = _mm256_castps_si256(_mm256_cmp_ps(AbsV(v), Set1(0.015625f), _CMP_LT_OQ));
    code = _mm256_blendv_epi8(_mm256_min_epi32(normal, _mm256_set1_epi32(0x7e)), small, is_small);
    const __m256i sign = _mm256_srli_epi32(_mm256_castps_si256(v), 31);
    code = _mm256_or_si256(code, _mm256_slli_epi32(sign, 7));
  }
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(words, words));
}
#endif

// kWidth words of a block of E's elements from as many bytes as they have elements; they stand for
// kWidenedTimes as much.
#if defined(__AVX512F__)
template <typename E, DType B>
constexpr float kWidenedTimes = B == DType::kInt8 || E::kPerWord == 2 ? 1.0f : 256.0f;
#else
template <typename E, DType B>
constexpr float kWidenedTimes = B == DType::kInt8 ? 1.0f : 256.0f;
#endif
template <typename E, DType B>
inline Vec WidenWords(const uint8_t* from) {
  if constexpr (E::kPerWord == 1) {
    return WidenBytes<B>(from);
#if defined(__AVX512F__)
  } else if constexpr (B == DType::kFloat8E4M3) {
    return WidenFloat8Pairs(from);
#endif
  } else {
    return UpperHalves(WidenBytes<B>(from), WidenBytes<B>(from + kWidth));
  }
}

// The keys of a block of bytes, all 64 tokens.
template <typename E, DType B>
void WidenKeys(typename E::Word* to, const uint8_t* from, int64_t head_dim) {
  const int64_t words = KeyWords<E>(head_dim) * kBlockTokens;
  for (int64_t i = 0; i < words; i += kWidth) StoreWords(to + i, WidenWords<E, B>(from + i * E::kPerWord));
}
// The first `rows` rows of words of a block's values, each filled up to `columns` words, a multiple of
// kWidth; what they are filled with is finite. Reads past a row, never past the block's scales.
template <typename E, DType B>
void WidenValues(typename E::Word* to, const uint8_t* from, int64_t rows, int64_t head_dim, int64_t columns) {
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t i = 0; i < columns; i += kWidth) {
      StoreWords(to + t * columns + i, WidenWords<E, B>(from + (t * head_dim + i) * E::kPerWord));
    }
  }
}

inline BFloat16* BlockScales(void* block, int64_t head_dim) {
  return reinterpret_cast<BFloat16*>(static_cast<uint8_t*>(block) + kBlockTokens * head_dim);
}
// The scales of a block's first `valid` tokens, as WidenWords needs them; 0 for the others, which may be
// anything.
template <typename E, DType B>
inline void LoadScales(float* to, const uint8_t* block, int64_t head_dim, int64_t valid) {
  const auto* scales = reinterpret_cast<const BFloat16*>(block + kBlockTokens * head_dim);
  for (int64_t t = 0; t < kBlockTokens; t += kWidth) {
    const Vec v = MulV(Load(scales + t), Set1(kWidenedTimes<E, B>));
    Store(to + t, FirstN(v, Zero(), static_cast<int>(valid - t)));
  }
}

// A scale, not negative, rounded up to bfloat16; NaN stays NaN.
inline BFloat16 RoundScaleUp(float scale) {
  return {static_cast<uint16_t>((__builtin_bit_cast(uint32_t, scale) + 0xffffu) >> 16)};
}
inline float WidenScale(BFloat16 scale) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(scale.bits) << 16);
}

// Rounds a row to bytes; put(i, byte) for each. Returns the row's scale.
template <typename E, DType B, typename Put>
inline BFloat16 QuantizeRow(const typename E::T* row, int64_t n, const Put& put) {
  Vec most = Zero(), odd = Zero();
  for (int64_t i = 0; i < n; i += kWidth) {
    const Vec v = LoadSome(row + i, n - i);
    most = MaxV(AbsV(v), most);
    odd = AddV(odd, SubV(v, v));  // NaN for infinity and NaN, else 0
  }
  const float top = MaxOf(most);
  const bool finite = !AnyNan(odd);
  if (!finite || top < kSmallestRow) {
    for (int64_t i = 0; i < n; ++i) put(i, 0);
    return RoundScaleUp(finite ? 0.0f : __builtin_nanf(""));
  }
  const BFloat16 scale = RoundScaleUp(top / kMostOfBytes<B>);
  const Vec inverse = Set1(1.0f / WidenScale(scale));
  alignas(16) uint8_t bytes[kWidth];
  for (int64_t i = 0; i < n; i += kWidth) {
    RoundToBytes<B>(bytes, MulV(LoadSome(row + i, n - i), inverse));
    const int64_t count = n - i < kWidth ? n - i : kWidth;
    for (int64_t j = 0; j < count; ++j) put(i + j, bytes[j]);
  }
  return scale;
}

template <typename E, DType B>
void QuantizeTokens(void* block, int64_t offset, const void* rows, int64_t stride, int64_t count,
                    int64_t head_dim, bool values) {
  constexpr int64_t kPer = E::kPerWord;
  auto* bytes = static_cast<uint8_t*>(block);
  BFloat16* scales = BlockScales(block, head_dim);
  for (int64_t t = 0; t < count; ++t) {
    const auto* row = static_cast<const typename E::T*>(rows) + t * stride;
    const int64_t token = offset + t;
    if (values) {
      uint8_t* to = bytes + token / kPer * head_dim * kPer + token % kPer;
      scales[token] = QuantizeRow<E, B>(row, head_dim, [to](int64_t i, uint8_t b) { to[i * kPer] = b; });
    } else {
      scales[token] = QuantizeRow<E, B>(row, head_dim, [bytes, token](int64_t i, uint8_t b) {
        bytes[(i / kPer * kBlockTokens + token) * kPer + i % kPer] = b;
      });
    }
  }
}

template <typename E>
void QuantizeKeys(void* block, int64_t offset, const void* rows, int64_t stride, int64_t count,
                  int64_t head_dim, DType bytes) {
  auto* fn = bytes == DType::kInt8 ? QuantizeTokens<E, DType::kInt8> : QuantizeTokens<E, DType::kFloat8E4M3>;
  fn(block, offset, rows, stride, count, head_dim, false);
}
template <typename E>
void QuantizeValues(void* block, int64_t offset, const void* rows, int64_t stride, int64_t count,
                    int64_t head_dim, DType bytes) {
  auto* fn = bytes == DType::kInt8 ? QuantizeTokens<E, DType::kInt8> : QuantizeTokens<E, DType::kFloat8E4M3>;
  fn(block, offset, rows, stride, count, head_dim, true);
}

}  // namespace
}  // namespace fd::cpu::FD_ISA_NS

// One float vector of the instruction set that the including source is compiled for. Everything lies in
// namespace fd::cpu::FD_ISA_NS, so that no inline function is shared between instruction sets.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cpu::FD_ISA_NS {

// Load(p), LoadN(p, n < kWidth; the rest 0), Store(p, v), StoreN(p, v, n) convert from and to float32.
// bfloat16 is rounded to nearest even, denormals kept, exactly as ToBFloat16 does.

#if defined(__AVX512F__)

inline constexpr int kWidth = 16;
using Vec = __m512;

inline Vec Set1(float x) { return _mm512_set1_ps(x); }
inline Vec Zero() { return _mm512_setzero_ps(); }
inline Vec AddV(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec SubV(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec MulV(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec DivV(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec FmaV(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }    // a b + c
inline Vec FnmaV(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
inline Vec FmsV(Vec a, Vec b, Vec c) { return _mm512_fmsub_ps(a, b, c); }    // a b - c
// When one operand is NaN the result is b.
inline Vec MaxV(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec MinV(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline float SumV(Vec v) {
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline float MaxOf(Vec v) {
  __m256 h = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
// Lanes below n from a, the others from b.
inline Vec FirstN(Vec a, Vec b, int n) {
  return _mm512_mask_blend_ps(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1, b, a);
}
inline Vec RoundV(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// x * 2^n for integral n.
inline Vec ScaleByPower(Vec x, Vec n) { return _mm512_scalef_ps(x, n); }
inline Vec SelectNegative(Vec sign, Vec negative, Vec positive) {
  return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(sign)), positive, negative);
}
inline bool AnyNan(Vec v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q) != 0; }
inline Vec AbsV(Vec v) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)));
}
// (x0, x1, x2, ...) -> (x1, x0, x3, ...)
inline Vec SwapPairs(Vec v) { return _mm512_permute_ps(v, 0xB1); }
// Even lanes a b - c, odd lanes a b + c.
inline Vec FmaddsubV(Vec a, Vec b, Vec c) { return _mm512_fmaddsub_ps(a, b, c); }

inline __mmask16 MaskN(int n) { return static_cast<__mmask16>((1u << n) - 1); }
inline Vec Load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec LoadN(const float* p, int n) { return _mm512_maskz_loadu_ps(MaskN(n), p); }
inline void Store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline void StoreN(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, MaskN(n), v); }
inline Vec WidenBf16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline __m256i RoundToBf16(Vec v) {
  __m512i u = _mm512_castps_si512(v);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet));
}
inline Vec Load(const BFloat16* p) {
  return WidenBf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec LoadN(const BFloat16* p, int n) { return WidenBf16(_mm256_maskz_loadu_epi16(MaskN(n), p)); }
inline void Store(BFloat16* p, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), RoundToBf16(v)); }
inline void StoreN(BFloat16* p, Vec v, int n) { _mm256_mask_storeu_epi16(p, MaskN(n), RoundToBf16(v)); }
inline Vec Load(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline Vec LoadN(const uint8_t* p, int n) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(MaskN(n), p)));
}

#else  // AVX2 + FMA

inline constexpr int kWidth = 8;
using Vec = __m256;

inline Vec Set1(float x) { return _mm256_set1_ps(x); }
inline Vec Zero() { return _mm256_setzero_ps(); }
inline Vec AddV(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec SubV(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec MulV(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec DivV(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec FmaV(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec FnmaV(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a, b, c); }
inline Vec FmsV(Vec a, Vec b, Vec c) { return _mm256_fmsub_ps(a, b, c); }
inline Vec MaxV(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec MinV(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline float SumV(Vec v) {
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
inline float MaxOf(Vec v) {
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
inline Vec FirstN(Vec a, Vec b, int n) {
  __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane)));
}
inline Vec RoundV(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// For |n| <= 252: two factors, because 2^n alone may be out of range where the result is a denormal.
inline Vec ScaleByPower(Vec x, Vec n) {
  __m256i i = _mm256_cvtps_epi32(n);
  __m256i first = _mm256_srai_epi32(i, 1);
  __m256i second = _mm256_sub_epi32(i, first);
  auto power = [](__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
  };
  return _mm256_mul_ps(_mm256_mul_ps(x, power(first)), power(second));
}
inline Vec SelectNegative(Vec sign, Vec negative, Vec positive) {
  return _mm256_blendv_ps(positive, negative, sign);
}
inline bool AnyNan(Vec v) { return _mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)) != 0; }
inline Vec AbsV(Vec v) { return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff))); }
inline Vec SwapPairs(Vec v) { return _mm256_permute_ps(v, 0xB1); }
inline Vec FmaddsubV(Vec a, Vec b, Vec c) { return _mm256_fmaddsub_ps(a, b, c); }

inline __m256i MaskN(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec Load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec LoadN(const float* p, int n) { return _mm256_maskload_ps(p, MaskN(n)); }
inline void Store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline void StoreN(float* p, Vec v, int n) { _mm256_maskstore_ps(p, MaskN(n), v); }
inline Vec WidenBf16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline __m128i RoundToBf16(Vec v) {
  __m256i u = _mm256_castps_si256(v);
  __m256i high = _mm256_srli_epi32(u, 16);
  __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  __m256i bits = _mm256_blendv_epi8(rounded, quiet, is_nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
}
inline Vec Load(const BFloat16* p) { return WidenBf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline Vec LoadN(const BFloat16* p, int n) {
  alignas(16) uint16_t bits[8] = {};
  for (int i = 0; i < n; ++i) bits[i] = p[i].bits;
  return WidenBf16(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
}
inline void Store(BFloat16* p, Vec v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), RoundToBf16(v)); }
inline void StoreN(BFloat16* p, Vec v, int n) {
  alignas(16) uint16_t bits[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(bits), RoundToBf16(v));
  for (int i = 0; i < n; ++i) p[i].bits = bits[i];
}
inline Vec Load(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline Vec LoadN(const uint8_t* p, int n) {
  alignas(8) uint8_t bytes[8] = {};
  for (int i = 0; i < n; ++i) bytes[i] = p[i];
  return Load(bytes);
}

#endif

// Up to kWidth of `count` elements, which may be 0 or less; LoadSome gives 0 for the rest.
template <typename T>
inline void StoreSome(T* out, Vec v, int64_t count) {
  if (count >= kWidth) {
    Store(out, v);
  } else if (count > 0) {
    StoreN(out, v, static_cast<int>(count));
  }
}
template <typename T>
inline Vec LoadSome(const T* in, int64_t count) {
  return count >= kWidth ? Load(in) : count > 0 ? LoadN(in, static_cast<int>(count)) : Zero();
}

// Rounds to T and back.
inline Vec RoundTo(const float*, Vec v) { return v; }
inline Vec RoundTo(const BFloat16*, Vec v) { return WidenBf16(RoundToBf16(v)); }

// 2^x for x <= 0 by the Taylor polynomial of degree 6 in the fraction's multiple of ln 2, error below 1.3e-7;
// 0 below -150, NaN stays.
inline Vec Exp2NonPositive(Vec x) {
  x = MaxV(Set1(-160.0f), x);
  const Vec n = RoundV(x);
  const Vec r = SubV(x, n);
  Vec p = Set1(1.5403530e-4f);
  p = FmaV(p, r, Set1(1.3333558e-3f));
  p = FmaV(p, r, Set1(9.6181291e-3f));
  p = FmaV(p, r, Set1(5.5504109e-2f));
  p = FmaV(p, r, Set1(2.4022651e-1f));
  p = FmaV(p, r, Set1(6.9314718e-1f));
  return ScaleByPower(FmaV(p, r, Set1(1.0f)), n);
}

// e^(x + tail), |tail| tiny: the tail carries what rounding took from x.
inline Vec ExpV(Vec x, Vec tail) {
  x = MaxV(Set1(-110.0f), MinV(Set1(110.0f), x));
  Vec n = RoundV(MulV(x, Set1(1.44269504f)));
  Vec r = FnmaV(n, Set1(0.693359375f), x);  // ln 2 in two parts; the first product is exact
  r = AddV(FnmaV(n, Set1(-2.12194440e-4f), r), tail);
  Vec p = Set1(1.9841270e-4f);  // 1/7!
  p = FmaV(p, r, Set1(1.3888889e-3f));
  p = FmaV(p, r, Set1(8.3333333e-3f));
  p = FmaV(p, r, Set1(4.1666667e-2f));
  p = FmaV(p, r, Set1(1.6666667e-1f));
  p = FmaV(p, r, Set1(0.5f));
  p = FmaV(MulV(p, r), r, r);
  return ScaleByPower(AddV(p, Set1(1.0f)), n);
}
inline Vec ExpV(Vec x) { return ExpV(x, Zero()); }

}  // namespace fd::cpu::FD_ISA_NS

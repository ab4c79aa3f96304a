// Included by attention.inc alone: the types of element that a block of keys or values consists of, how they
// are multiplied, and how rows are brought into a block's layout (attention.h says which).
#pragma once

#include "compute/kernels/cpu/attention.h"
#include "compute/kernels/cpu/vec.h"

namespace fd::cpu::FD_ISA_NS {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();
constexpr int kBlockVecs = static_cast<int>(kBlockTokens) / kWidth;

inline int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Transposes the kWidth x kWidth matrix of 32-bit elements.
#if defined(__AVX512F__)
inline void Transpose(Vec (&r)[16]) {
  Vec t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xDD);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xDD);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xDD);
    r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xDD);
  }
}
#else
inline void Transpose(Vec (&r)[8]) {
  Vec t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}
#endif

#if defined(__AVX512F__)
inline Vec LoadWords(const void* p) { return _mm512_loadu_ps(p); }
inline void StoreWords(void* p, Vec v) { _mm512_storeu_ps(p, v); }
inline Vec LowHalves(Vec v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 16)); }
inline Vec HighHalves(Vec v) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(-0x10000)));
}
// (a0, b0, a1, b1, ...) of 16-bit elements.
inline Vec PairUp(const BFloat16* a, const BFloat16* b) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
  const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
  return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
inline Vec ShiftToExponent(Vec v) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 23));
}
inline Vec AddBits(Vec a, Vec b) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
#else
inline Vec LoadWords(const void* p) { return _mm256_loadu_ps(static_cast<const float*>(p)); }
inline void StoreWords(void* p, Vec v) { _mm256_storeu_ps(static_cast<float*>(p), v); }
inline Vec LowHalves(Vec v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 16)); }
inline Vec HighHalves(Vec v) {
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(-0x10000)));
}
inline Vec PairUp(const BFloat16* a, const BFloat16* b) {
  const __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a)));
  const __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
  return _mm256_castsi256_ps(_mm256_or_si256(low, _mm256_slli_epi32(high, 16)));
}
inline Vec ShiftToExponent(Vec v) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 23));
}
inline Vec AddBits(Vec a, Vec b) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
#endif

// 2^x for x <= 0, error below 2.9e-6 (a bfloat16 probability is rounded to 2e-3); a denormal, which the
// caller has taken for 0, below -126. The exponent is added as bits: a NaN must have its low nine bits clear,
// as one that comes from bfloat16 has.
inline Vec Exp2Coarse(Vec x) {
  x = MaxV(Set1(-126.5f), x);
  const Vec shifted = AddV(x, Set1(12582912.0f));  // 1.5 x 2^23: the lowest bits are now the nearest integer
  const Vec r = SubV(x, SubV(shifted, Set1(12582912.0f)));
  Vec p = Set1(9.58285433e-3f);
  p = FmaV(p, r, Set1(5.59064349e-2f));
  p = FmaV(p, r, Set1(2.40240987e-1f));
  p = FmaV(p, r, Set1(6.93124192e-1f));
  return AddBits(FmaV(p, r, Set1(1.0f)), ShiftToExponent(shifted));
}

// An element type E says: T, the activations; Word, 32 bits of a block: kPerWord neighbours in the direction
// that a product sums over; Factor, what a word is multiplied with, kFactors of them a word.
struct Float32Elements {
  using T = float;
  using Word = float;
  using Factor = float;
  static constexpr int kPerWord = 1;
  static constexpr int kFactors = 1;
  static Vec Broadcast(const float* p) { return Set1(*p); }
  static Vec LoadB(const float* p, int) { return Load(p); }
  static Vec Multiply(Vec a, Vec b, Vec c) { return FmaV(a, b, c); }
  static Vec Exp2(Vec x) { return Exp2NonPositive(x); }
  // Rounded where transformers rounds, after the scale: float32 is compared with it.
  static Vec Exponent(Vec score, Vec max, Vec scale) { return SubV(MulV(score, scale), MulV(max, scale)); }
  static void StoreFactors(float* p, Vec v) { Store(p, v); }
};

// bfloat16 pairs without a dot product: two multiply-adds of the widened halves.
struct WidenedElements {
  using T = BFloat16;
  using Word = uint32_t;
  using Factor = float;
  static constexpr int kPerWord = 2;
  static constexpr int kFactors = 2;
  static Vec Broadcast(const float* p) { return Set1(*p); }
  static Vec LoadB(const uint32_t* p, int half) {
    return half == 0 ? LowHalves(LoadWords(p)) : HighHalves(LoadWords(p));
  }
  static Vec Multiply(Vec a, Vec b, Vec c) { return FmaV(a, b, c); }
  static Vec Exp2(Vec x) { return Exp2Coarse(x); }
  static Vec Exponent(Vec score, Vec max, Vec scale) { return MulV(SubV(score, max), scale); }
  static void StoreFactors(float* p, Vec v) { Store(p, v); }
};

#if defined(__AVX512BF16__)
struct DotElements {
  using T = BFloat16;
  using Word = uint32_t;
  using Factor = uint32_t;
  static constexpr int kPerWord = 2;
  static constexpr int kFactors = 1;
  static Vec Broadcast(const uint32_t* p) {
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*p)));
  }
  static Vec LoadB(const uint32_t* p, int) { return LoadWords(p); }
  static Vec Multiply(Vec a, Vec b, Vec c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(b), reinterpret_cast<__m512bh>(a));
  }
  static Vec Exp2(Vec x) { return Exp2Coarse(x); }
  static Vec Exponent(Vec score, Vec max, Vec scale) { return MulV(SubV(score, max), scale); }
  static void StoreFactors(uint32_t* p, Vec v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
  }
};
#endif

template <typename E>
int64_t KeyWords(int64_t head_dim) {
  return (head_dim + E::kPerWord - 1) / E::kPerWord;
}

// Words [first, first + kWidth) of a row of n elements, zeros past its end.
template <typename E>
inline Vec RowWords(const typename E::T* row, int64_t first, int64_t n) {
  const int64_t left = n - first * E::kPerWord;
  if (left >= kWidth * E::kPerWord) return LoadWords(row + first * E::kPerWord);
  alignas(64) typename E::T part[kWidth * E::kPerWord] = {};
  for (int64_t i = 0; i < left; ++i) part[i] = row[first * E::kPerWord + i];
  return LoadWords(part);
}

// offset + count <= kBlockTokens. Whole vectors of tokens are transposed, others scattered word by word.
// Another thread may write other tokens of the block at the same time.
template <typename E>
void WriteKeys(void* block, int64_t offset, const void* rows, int64_t stride, int64_t count,
               int64_t head_dim) {
  using T = typename E::T;
  auto* words = static_cast<typename E::Word*>(block) + offset;
  const T* row = static_cast<const T*>(rows);
  const int64_t n = KeyWords<E>(head_dim);
  for (int64_t t = 0; t < count;) {
    const bool whole = (offset + t) % kWidth == 0 && t + kWidth <= count;
    for (int64_t i = 0; i < n; i += kWidth) {
      const int64_t lanes = n - i < kWidth ? n - i : kWidth;
      if (whole) {
        Vec square[kWidth];
        for (int j = 0; j < kWidth; ++j) square[j] = RowWords<E>(row + (t + j) * stride, i, head_dim);
        Transpose(square);
        for (int64_t j = 0; j < lanes; ++j) StoreWords(words + (i + j) * kBlockTokens + t, square[j]);
      } else {
        alignas(64) typename E::Word line[kWidth];
        StoreWords(line, RowWords<E>(row + t * stride, i, head_dim));
        for (int64_t j = 0; j < lanes; ++j) words[(i + j) * kBlockTokens + t] = line[j];
      }
    }
    t += whole ? kWidth : 1;
  }
}

// columns - head_dim zeros follow each token's values.
template <typename E>
void WriteValues(void* block, int64_t offset, const void* rows, int64_t stride, int64_t count,
                 int64_t head_dim, int64_t columns) {
  using T = typename E::T;
  const T* row = static_cast<const T*>(rows);
  for (int64_t t = 0; t < count;) {
    const int64_t token = offset + t;
    T* to = static_cast<T*>(block) + token / E::kPerWord * columns * E::kPerWord + token % E::kPerWord;
    int64_t i = 0;
    int64_t done = 1;
    if constexpr (E::kPerWord == 1) {
      for (; i + kWidth <= head_dim; i += kWidth) Store(to + i, Load(row + t * stride + i));
    } else if (token % 2 == 0 && t + 1 < count) {
      const T* a = row + t * stride;
      const T* b = a + stride;
      for (; i + kWidth <= head_dim; i += kWidth) StoreWords(to + 2 * i, PairUp(a + i, b + i));
      done = 2;
    }
    for (int64_t j = 0; j < done; ++j) {
      for (int64_t c = i; c < columns; ++c) {
        to[c * E::kPerWord + j] = c < head_dim ? row[(t + j) * stride + c] : T{};
      }
    }
    t += done;
  }
}

}  // namespace
}  // namespace fd::cpu::FD_ISA_NS

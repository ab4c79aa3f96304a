// Row loops with AVX2. A weight of 22 bits is split as high * 4096 + low, so that two products of bytes with
// 16-bit halves and their sum are one instruction; the halves meet again in 32 bits, where nothing is lost.
#include "server/multimodal/resize_rows.h"

#ifdef __x86_64__
#include <immintrin.h>

#include <algorithm>

#include <cstring>

#define FD_AVX2 __attribute__((target("avx2")))

namespace fd {
namespace {

constexpr int kLowBits = 12;
constexpr int32_t kHalf = 1 << (kWeightBits - 1);

int16_t High(int32_t weight) { return static_cast<int16_t>((weight + (1 << (kLowBits - 1))) >> kLowBits); }
int16_t Low(int32_t weight) { return static_cast<int16_t>(weight - (int32_t{High(weight)} << kLowBits)); }

// For four taps of one output: pairs of weights 0 and 1 in the low lane, 2 and 3 in the high lane, once for
// each channel; first the high halves, then the low ones.
void PackTaps(Taps* taps) {
  const size_t out = taps->first.size();
  taps->groups = (taps->max_count + 3) / 4;
  taps->packed.assign(out * static_cast<size_t>(taps->groups) * 32, 0);
  int16_t* to = taps->packed.data();
  for (size_t x = 0; x < out; ++x) {
    const int32_t* weight = taps->weight.data() + static_cast<int64_t>(x) * taps->per_output;
    for (int64_t group = 0; group < taps->groups; ++group, to += 32) {
      for (int64_t k = 4 * group; k < std::min(4 * group + 4, taps->count[x]); ++k) {
        for (int64_t channel = 0; channel < 3; ++channel) {
          const int64_t at = (k % 4) / 2 * 8 + 2 * channel + k % 2;
          to[at] = High(weight[k]);
          to[at + 16] = Low(weight[k]);
        }
      }
    }
  }
}

uint8_t Clip8(int32_t value) {
  value >>= kWeightBits;
  return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// Four pixels (12 of the 16 bytes read) as 16-bit pairs: low lane r0 r1 g0 g1 b0 b1 0 0, high lane the next
// two.
FD_AVX2 inline __m256i LoadTaps(const uint8_t* pixels, __m256i order) {
  return _mm256_shuffle_epi8(
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels))), order);
}

template <int kRows>
FD_AVX2 void ResizeWidthRows(const uint8_t* const* in, int64_t in_pixels, const Taps& taps,
                             uint8_t* const* out) {
  const __m256i order = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                                         6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
  const int64_t width = static_cast<int64_t>(taps.first.size());
  const int64_t groups = taps.groups;
  const int16_t* packed = taps.packed.data();
  for (int64_t x = 0; x < width; ++x, packed += 32 * groups) {
    const int64_t first = taps.first[static_cast<size_t>(x)];
    const int64_t count = taps.count[static_cast<size_t>(x)];
    const int64_t used = (count + 3) / 4;
    // The last group reads 16 bytes, and a pixel's four bytes are stored at once, where both stay inside.
    if (3 * (first + 4 * (used - 1)) + 16 > 3 * in_pixels || x + 1 == width) {
      const int32_t* weight = taps.weight.data() + x * taps.per_output;
      for (int r = 0; r < kRows; ++r) {
        for (int c = 0; c < 3; ++c) {
          int32_t sum = kHalf;
          for (int64_t k = 0; k < count; ++k) sum += in[r][3 * (first + k) + c] * weight[k];
          out[r][3 * x + c] = Clip8(sum);
        }
      }
      continue;
    }
    __m256i high[kRows], low[kRows];
    {
      const __m256i w_high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed));
      const __m256i w_low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + 16));
      for (int r = 0; r < kRows; ++r) {
        const __m256i pixels = LoadTaps(in[r] + 3 * first, order);
        high[r] = _mm256_madd_epi16(pixels, w_high);
        low[r] = _mm256_madd_epi16(pixels, w_low);
      }
    }
    for (int64_t group = 1; group < used; ++group) {
      const __m256i w_high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + 32 * group));
      const __m256i w_low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed + 32 * group + 16));
      for (int r = 0; r < kRows; ++r) {
        const __m256i pixels = LoadTaps(in[r] + 3 * (first + 4 * group), order);
        high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(pixels, w_high));
        low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(pixels, w_low));
      }
    }
    __m128i sum[4];
    for (int r = 0; r < 4; ++r) {
      if (r >= kRows) {
        sum[r] = sum[0];
        continue;
      }
      const __m256i both = _mm256_add_epi32(_mm256_slli_epi32(high[r], kLowBits), low[r]);
      const __m128i folded = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
      sum[r] = _mm_srai_epi32(_mm_add_epi32(folded, _mm_set1_epi32(kHalf)), kWeightBits);
    }
    const __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(sum[0], sum[1]), _mm_packs_epi32(sum[2], sum[3]));
    const int32_t pixel[4] = {_mm_extract_epi32(bytes, 0), _mm_extract_epi32(bytes, 1),
                              _mm_extract_epi32(bytes, 2), _mm_extract_epi32(bytes, 3)};
    for (int r = 0; r < kRows; ++r) std::memcpy(out[r] + 3 * x, &pixel[r], 4);
  }
}

FD_AVX2 void ResizeWidth(const uint8_t* const* in, int64_t in_pixels, const Taps& taps, uint8_t* const* out,
                         int num_rows) {
  if (num_rows == 4) return ResizeWidthRows<4>(in, in_pixels, taps, out);
  for (int r = 0; r < num_rows; ++r) ResizeWidthRows<1>(in + r, in_pixels, taps, out + r);
}

FD_AVX2 void ResizeHeight(const uint8_t* const* rows, const int32_t* weight, int64_t count, int64_t row_bytes,
                          uint8_t* out) {
  int64_t i = 0;
  for (; i + 32 <= row_bytes; i += 32) {
    __m256i high[4], low[4];
    for (int v = 0; v < 4; ++v) high[v] = low[v] = _mm256_setzero_si256();
    for (int64_t k = 0; k < count; k += 2) {
      // An odd last row is paired with itself at weight 0.
      const int64_t other = k + 1 < count ? k + 1 : k;
      const int32_t w0 = weight[k], w1 = k + 1 < count ? weight[k + 1] : 0;
      const __m256i w_high = _mm256_set1_epi32(int32_t{High(w1)} << 16 | (High(w0) & 0xffff));
      const __m256i w_low = _mm256_set1_epi32(int32_t{Low(w1)} << 16 | (Low(w0) & 0xffff));
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[k] + i));
      const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[other] + i));
      const __m256i zero = _mm256_setzero_si256();
      const __m256i even = _mm256_unpacklo_epi8(a, b), odd = _mm256_unpackhi_epi8(a, b);
      const __m256i pairs[4] = {_mm256_unpacklo_epi8(even, zero), _mm256_unpackhi_epi8(even, zero),
                                _mm256_unpacklo_epi8(odd, zero), _mm256_unpackhi_epi8(odd, zero)};
      for (int v = 0; v < 4; ++v) {
        high[v] = _mm256_add_epi32(high[v], _mm256_madd_epi16(pairs[v], w_high));
        low[v] = _mm256_add_epi32(low[v], _mm256_madd_epi16(pairs[v], w_low));
      }
    }
    for (int v = 0; v < 4; ++v) {
      const __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(high[v], kLowBits), low[v]);
      high[v] = _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(kHalf)), kWeightBits);
    }
    // Unpacking and packing both keep to lanes, so the order is the one of the input again.
    const __m256i bytes =
        _mm256_packus_epi16(_mm256_packs_epi32(high[0], high[1]), _mm256_packs_epi32(high[2], high[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), bytes);
  }
  for (; i < row_bytes; ++i) {
    int32_t sum = kHalf;
    for (int64_t k = 0; k < count; ++k) sum += rows[k][i] * weight[k];
    out[i] = Clip8(sum);
  }
}

// 42 bytes r g b r g b ... -> 14 bytes of each channel. Loads reach from byte 0, 16 and 26.
FD_AVX2 void SplitPatches14(const uint8_t* row, int64_t num_patches, uint8_t* const* patches) {
  alignas(16) int8_t order[3][3][16];
  constexpr int kFrom[3] = {0, 16, 26};
  std::memset(order, -1, sizeof(order));
  for (int c = 0; c < 3; ++c) {
    for (int x = 0; x < 14; ++x) {
      const int byte = 3 * x + c, load = byte < 16 ? 0 : byte < 32 ? 1 : 2;
      order[c][load][x] = static_cast<int8_t>(byte - kFrom[load]);
    }
  }
  __m128i shuffle[3][3];
  for (int c = 0; c < 3; ++c) {
    for (int l = 0; l < 3; ++l) shuffle[c][l] = _mm_load_si128(reinterpret_cast<const __m128i*>(order[c][l]));
  }
  for (int64_t p = 0; p < num_patches; ++p, row += 42) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + kFrom[1]));
    const __m128i d = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + kFrom[2]));
    for (int c = 0; c < 3; ++c) {
      const __m128i values =
          _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(a, shuffle[c][0]), _mm_shuffle_epi8(b, shuffle[c][1])),
                       _mm_shuffle_epi8(d, shuffle[c][2]));
      uint8_t* to = patches[p] + 196 * c;
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), values);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 6), _mm_srli_si128(values, 6));
    }
  }
}

}  // namespace

const RowKernels& Avx2RowKernels() {
  static constexpr RowKernels kKernels = {"avx2", PackTaps, ResizeWidth, ResizeHeight, SplitPatches14};
  return kKernels;
}

}  // namespace fd
#endif

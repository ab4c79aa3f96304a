// Row loops with AVX-512 VNNI. A weight is three signed digits of eight bits, d2 * 65536 + d1 * 256 + d0, so
// that one instruction multiplies four bytes by four digits and adds them up; three sums make the whole,
// exactly.
#include "server/multimodal/resize_rows.h"

#ifdef __x86_64__
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#define FD_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")))

namespace fd {
namespace {

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

struct Digits {
  int8_t d[3];
};
Digits Split(int32_t weight) {
  Digits out;
  out.d[0] = static_cast<int8_t>(weight & 255);
  weight = (weight - out.d[0]) / 256;
  out.d[1] = static_cast<int8_t>(weight & 255);
  out.d[2] = static_cast<int8_t>((weight - out.d[1]) / 256);
  return out;
}

// For four taps of one output: their digits 0, digits 1 and digits 2, four bytes each, then four of padding.
// Kept in the int16_t array that all sets share.
void PackTaps(Taps* taps) {
  const size_t out = taps->first.size();
  taps->groups = (taps->max_count + 3) / 4;
  taps->packed.assign(out * static_cast<size_t>(taps->groups) * 8, 0);
  auto* to = reinterpret_cast<int8_t*>(taps->packed.data());
  for (size_t x = 0; x < out; ++x) {
    const int32_t* weight = taps->weight.data() + static_cast<int64_t>(x) * taps->per_output;
    for (int64_t group = 0; group < taps->groups; ++group, to += 16) {
      for (int64_t k = 4 * group; k < std::min(4 * group + 4, taps->count[x]); ++k) {
        const Digits digits = Split(weight[k]);
        for (int64_t digit = 0; digit < 3; ++digit) to[4 * digit + k % 4] = digits.d[digit];
      }
    }
  }
}

uint8_t Clip8(int32_t value) {
  value >>= kWeightBits;
  return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

FD_VNNI inline __m512i Whole(__m512i s0, __m512i s1, __m512i s2) {
  const __m512i high = _mm512_add_epi32(_mm512_slli_epi32(s2, 16), _mm512_slli_epi32(s1, 8));
  return _mm512_srai_epi32(_mm512_add_epi32(high, s0), kWeightBits);
}

FD_VNNI inline __m128i Load16(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

// Four rows at once, one in each 128-bit lane: four taps of a pixel's three channels are twelve bytes.
struct FourRows {
  const uint8_t* row[4];
  const Taps& taps;
  const int8_t* packed;

  // The finished pixel x of each row as three 32-bit numbers, below 0 or above 255 where the sum is.
  FD_VNNI inline __m512i Pixel(int64_t x) const {
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
    __m512i s0 = _mm512_set1_epi32(kHalf), s1 = _mm512_setzero_si512(), s2 = s1;
    const int8_t* digits = packed + 16 * taps.groups * x;
    const int64_t end = taps.first[static_cast<size_t>(x)] + taps.count[static_cast<size_t>(x)];
    for (int64_t k = taps.first[static_cast<size_t>(x)]; k < end; k += 4, digits += 16) {
      __m512i pixels = _mm512_castsi128_si512(Load16(row[0] + 3 * k));
      pixels = _mm512_inserti32x4(pixels, Load16(row[1] + 3 * k), 1);
      pixels = _mm512_inserti32x4(pixels, Load16(row[2] + 3 * k), 2);
      pixels = _mm512_inserti32x4(pixels, Load16(row[3] + 3 * k), 3);
      pixels = _mm512_shuffle_epi8(pixels, order);
      int32_t d[3];
      std::memcpy(d, digits, sizeof(d));
      s0 = _mm512_dpbusd_epi32(s0, pixels, _mm512_set1_epi32(d[0]));
      s1 = _mm512_dpbusd_epi32(s1, pixels, _mm512_set1_epi32(d[1]));
      s2 = _mm512_dpbusd_epi32(s2, pixels, _mm512_set1_epi32(d[2]));
    }
    return Whole(s0, s1, s2);
  }
};

FD_VNNI void ResizeWidthOf4(const uint8_t* const* in, int64_t in_pixels, const Taps& taps,
                            uint8_t* const* out) {
  const FourRows rows{
      {in[0], in[1], in[2], in[3]}, taps, reinterpret_cast<const int8_t*>(taps.packed.data())};
  uint8_t* const to[4] = {out[0], out[1], out[2], out[3]};
  const int64_t width = static_cast<int64_t>(taps.first.size());
  // Whether the 16 bytes that the last group of pixel x reads lie inside the row.
  auto is_inside = [&](int64_t x) {
    const int64_t groups = (taps.count[static_cast<size_t>(x)] + 3) / 4;
    return 3 * (taps.first[static_cast<size_t>(x)] + 4 * groups - 4) + 16 <= 3 * in_pixels;
  };
  const __m512i together =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  int64_t x = 0;
  // Four pixels are twelve bytes, stored as sixteen: the next four overwrite the rest.
  for (; x + 6 <= width && is_inside(x) && is_inside(x + 1) && is_inside(x + 2) && is_inside(x + 3); x += 4) {
    const __m512i low = _mm512_packs_epi32(rows.Pixel(x), rows.Pixel(x + 1));
    const __m512i high = _mm512_packs_epi32(rows.Pixel(x + 2), rows.Pixel(x + 3));
    const __m512i bytes = _mm512_shuffle_epi8(_mm512_packus_epi16(low, high), together);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to[0] + 3 * x), _mm512_castsi512_si128(bytes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to[1] + 3 * x), _mm512_extracti32x4_epi32(bytes, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to[2] + 3 * x), _mm512_extracti32x4_epi32(bytes, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to[3] + 3 * x), _mm512_extracti32x4_epi32(bytes, 3));
  }
  for (; x < width; ++x) {
    const int64_t first = taps.first[static_cast<size_t>(x)], count = taps.count[static_cast<size_t>(x)];
    const int32_t* weight = taps.weight.data() + x * taps.per_output;
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < 3; ++c) {
        int32_t sum = kHalf;
        for (int64_t k = 0; k < count; ++k) sum += in[r][3 * (first + k) + c] * weight[k];
        to[r][3 * x + c] = Clip8(sum);
      }
    }
  }
}

void ResizeWidth(const uint8_t* const* in, int64_t in_pixels, const Taps& taps, uint8_t* const* out,
                 int num_rows) {
  if (num_rows == 4) return ResizeWidthOf4(in, in_pixels, taps, out);
  // The end of a picture: rows beyond the last one are computed again.
  const uint8_t* from[4];
  uint8_t* to[4];
  for (int r = 0; r < 4; ++r) from[r] = in[std::min(r, num_rows - 1)], to[r] = out[std::min(r, num_rows - 1)];
  ResizeWidthOf4(from, in_pixels, taps, to);
}

FD_VNNI void ResizeHeight(const uint8_t* const* rows, const int32_t* weight, int64_t count, int64_t row_bytes,
                          uint8_t* out) {
  int64_t i = 0;
  for (; i + 64 <= row_bytes; i += 64) {
    __m512i s0[4], s1[4], s2[4];
    for (int v = 0; v < 4; ++v) s0[v] = _mm512_set1_epi32(kHalf), s1[v] = s2[v] = _mm512_setzero_si512();
    for (int64_t k = 0; k < count; k += 4) {
      // Rows beyond the last are the last one at weight 0.
      uint32_t digits[3] = {};
      __m512i row[4];
      for (int64_t t = 0; t < 4; ++t) {
        row[t] = _mm512_loadu_si512(rows[std::min(k + t, count - 1)] + i);
        if (k + t >= count) continue;
        const Digits d = Split(weight[k + t]);
        for (int j = 0; j < 3; ++j) digits[j] |= uint32_t{static_cast<uint8_t>(d.d[j])} << (8 * t);
      }
      const __m512i ab_low = _mm512_unpacklo_epi8(row[0], row[1]),
                    ab_high = _mm512_unpackhi_epi8(row[0], row[1]);
      const __m512i cd_low = _mm512_unpacklo_epi8(row[2], row[3]),
                    cd_high = _mm512_unpackhi_epi8(row[2], row[3]);
      const __m512i four[4] = {_mm512_unpacklo_epi16(ab_low, cd_low), _mm512_unpackhi_epi16(ab_low, cd_low),
                               _mm512_unpacklo_epi16(ab_high, cd_high),
                               _mm512_unpackhi_epi16(ab_high, cd_high)};
      for (int v = 0; v < 4; ++v) {
        s0[v] = _mm512_dpbusd_epi32(s0[v], four[v], _mm512_set1_epi32(static_cast<int32_t>(digits[0])));
        s1[v] = _mm512_dpbusd_epi32(s1[v], four[v], _mm512_set1_epi32(static_cast<int32_t>(digits[1])));
        s2[v] = _mm512_dpbusd_epi32(s2[v], four[v], _mm512_set1_epi32(static_cast<int32_t>(digits[2])));
      }
    }
    // Unpacking and packing both keep to lanes, so the order is the one of the input again.
    const __m512i low = _mm512_packs_epi32(Whole(s0[0], s1[0], s2[0]), Whole(s0[1], s1[1], s2[1]));
    const __m512i high = _mm512_packs_epi32(Whole(s0[2], s1[2], s2[2]), Whole(s0[3], s1[3], s2[3]));
    _mm512_storeu_si512(out + i, _mm512_packus_epi16(low, high));
  }
  for (; i < row_bytes; ++i) {
    int32_t sum = kHalf;
    for (int64_t k = 0; k < count; ++k) sum += rows[k][i] * weight[k];
    out[i] = Clip8(sum);
  }
}

// 42 bytes r g b r g b ... -> 14 bytes of each channel, which are 14 bytes of a lane each.
FD_VNNI void SplitPatches14(const uint8_t* row, int64_t num_patches, uint8_t* const* patches) {
  alignas(64) uint8_t order[64] = {};
  for (int c = 0; c < 3; ++c) {
    for (int x = 0; x < 14; ++x) order[16 * c + x] = static_cast<uint8_t>(3 * x + c);
  }
  const __m512i index = _mm512_load_si512(order);
  constexpr __mmask64 k42 = (uint64_t{1} << 42) - 1;
  constexpr __mmask16 k14 = (1 << 14) - 1;
  for (int64_t p = 0; p < num_patches; ++p, row += 42) {
    const __m512i values = _mm512_permutexvar_epi8(index, _mm512_maskz_loadu_epi8(k42, row));
    _mm_mask_storeu_epi8(patches[p], k14, _mm512_castsi512_si128(values));
    _mm_mask_storeu_epi8(patches[p] + 196, k14, _mm512_extracti32x4_epi32(values, 1));
    _mm_mask_storeu_epi8(patches[p] + 392, k14, _mm512_extracti32x4_epi32(values, 2));
  }
}

}  // namespace

const RowKernels& VnniRowKernels() {
  static constexpr RowKernels kKernels = {"avx512_vnni", PackTaps, ResizeWidth, ResizeHeight, SplitPatches14};
  return kKernels;
}

}  // namespace fd
#endif

#include "server/multimodal/resize_rows.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace fd {
namespace {

uint8_t Clip8(int32_t value) { return static_cast<uint8_t>(std::clamp(value >> kWeightBits, 0, 255)); }

void ResizeWidth(const uint8_t* const* in, int64_t, const Taps& taps, uint8_t* const* out, int num_rows) {
  const int64_t width = static_cast<int64_t>(taps.first.size());
  for (int r = 0; r < num_rows; ++r) {
    uint8_t* to = out[r];
    for (int64_t x = 0; x < width; ++x, to += 3) {
      const uint8_t* from = in[r] + 3 * taps.first[static_cast<size_t>(x)];
      const int32_t* weight = taps.weight.data() + x * taps.per_output;
      int32_t red = 1 << (kWeightBits - 1), green = red, blue = red;
      for (int64_t k = 0; k < taps.count[static_cast<size_t>(x)]; ++k, from += 3) {
        red += from[0] * weight[k];
        green += from[1] * weight[k];
        blue += from[2] * weight[k];
      }
      to[0] = Clip8(red), to[1] = Clip8(green), to[2] = Clip8(blue);
    }
  }
}

void ResizeHeight(const uint8_t* const* rows, const int32_t* weight, int64_t count, int64_t row_bytes,
                  uint8_t* out) {
  constexpr int64_t kBlock = 1024;
  int32_t sum[kBlock];
  for (int64_t begin = 0; begin < row_bytes; begin += kBlock) {
    const int64_t n = std::min(kBlock, row_bytes - begin);
    std::fill(sum, sum + n, 1 << (kWeightBits - 1));
    for (int64_t k = 0; k < count; ++k) {
      const uint8_t* from = rows[k] + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] += from[i] * weight[k];
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = Clip8(sum[i]);
  }
}

void SplitPatches14(const uint8_t* row, int64_t num_patches, uint8_t* const* patches) {
  for (int64_t p = 0; p < num_patches; ++p, row += 42) {
    for (int c = 0; c < 3; ++c) {
      for (int x = 0; x < 14; ++x) patches[p][196 * c + x] = row[3 * x + c];
    }
  }
}

}  // namespace

const RowKernels& PlainRowKernels() {
  static constexpr RowKernels kKernels = {"plain", nullptr, ResizeWidth, ResizeHeight, SplitPatches14};
  return kKernels;
}

std::vector<const RowKernels*> AllRowKernels() {
  std::vector<const RowKernels*> all = {&PlainRowKernels()};
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2")) all.push_back(&Avx2RowKernels());
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi")) {
    all.push_back(&VnniRowKernels());
  }
#endif
  return all;
}

const RowKernels& BestRowKernels() {
  static const RowKernels* const best = [] {
    const std::vector<const RowKernels*> all = AllRowKernels();
    const char* wanted = std::getenv("FASTDEPLOY_ISA");
    const bool lowered = wanted != nullptr && std::string_view(wanted) == "avx2";
    return lowered ? all[std::min<size_t>(1, all.size() - 1)] : all.back();
  }();
  return *best;
}

}  // namespace fd

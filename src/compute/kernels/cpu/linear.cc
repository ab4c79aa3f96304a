#include "compute/kernels/cpu/linear.h"

#include <cstring>

#include "compute/kernels/cpu/isa.h"

namespace fd::cpu {

namespace avx2 {
extern const LinearKernels kLinearKernels;
}
namespace avx512 {
extern const LinearKernels kLinearKernels;
}
namespace avx512_bf16 {
extern const LinearKernels kLinearKernels;
}

const LinearKernels& GetLinearKernels() {
  switch (CurrentIsa()) {
    case Isa::kAvx2:
      return avx2::kLinearKernels;
    case Isa::kAvx512:
      return avx512::kLinearKernels;
    case Isa::kAvx512Bf16:
      return avx512_bf16::kLinearKernels;
  }
  return avx2::kLinearKernels;
}

void PackBFloat16(uint16_t* packed, int64_t first, const uint16_t* source, int64_t rows, int64_t k,
                  int64_t row_stride, int64_t column_stride) {
  const int64_t panel_elements = (k + 1) / 2 * 2 * kPanelFeatures;
  int64_t i = 0;
  // Whole panels of rows that lie one after the other: pairs move as 32-bit words and are written in order.
  if (first % kPanelFeatures == 0 && column_stride == 1) {
    for (; i + kPanelFeatures <= rows; i += kPanelFeatures) {
      uint16_t* to = packed + (first + i) / kPanelFeatures * panel_elements;
      const uint16_t* from = source + i * row_stride;
      for (int64_t j = 0; j + 1 < k; j += 2) {
        for (int64_t r = 0; r < kPanelFeatures; ++r) {
          std::memcpy(to + j * kPanelFeatures + 2 * r, from + r * row_stride + j, 4);
        }
      }
      if (k % 2 == 0) continue;
      for (int64_t r = 0; r < kPanelFeatures; ++r)
        to[(k - 1) * kPanelFeatures + 2 * r] = from[r * row_stride + k - 1];
    }
  }
  for (; i < rows; ++i) {
    const int64_t feature = first + i;
    uint16_t* to = packed + feature / kPanelFeatures * panel_elements + feature % kPanelFeatures * 2;
    const uint16_t* from = source + i * row_stride;
    for (int64_t j = 0; j < k; ++j) to[j / 2 * 2 * kPanelFeatures + j % 2] = from[j * column_stride];
  }
}

void PackFloat32(float* packed, int64_t first, const float* source, int64_t rows, int64_t k,
                 int64_t row_stride, int64_t column_stride) {
  const int64_t panel_elements = k * kPanelFeatures;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t feature = first + i;
    float* to = packed + feature / kPanelFeatures * panel_elements + feature % kPanelFeatures;
    const float* from = source + i * row_stride;
    for (int64_t j = 0; j < k; ++j) to[j * kPanelFeatures] = from[j * column_stride];
  }
}

void UnpackBFloat16(uint16_t* out, const uint16_t* packed, int64_t first, int64_t rows, int64_t k) {
  const int64_t panel_elements = (k + 1) / 2 * 2 * kPanelFeatures;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t feature = first + i;
    const uint16_t* from = packed + feature / kPanelFeatures * panel_elements + feature % kPanelFeatures * 2;
    for (int64_t j = 0; j < k; ++j) out[i * k + j] = from[j / 2 * 2 * kPanelFeatures + j % 2];
  }
}

void UnpackFloat32(float* out, const float* packed, int64_t first, int64_t rows, int64_t k) {
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t feature = first + i;
    const float* from = packed + feature / kPanelFeatures * k * kPanelFeatures + feature % kPanelFeatures;
    for (int64_t j = 0; j < k; ++j) out[i * k + j] = from[j * kPanelFeatures];
  }
}

}  // namespace fd::cpu

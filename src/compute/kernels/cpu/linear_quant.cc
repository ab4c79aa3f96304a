#include "compute/kernels/cpu/linear_quant.h"

#include "compute/kernels/cpu/isa.h"

namespace fd::cpu {

namespace avx2 {
extern const QuantKernels kQuantKernels;
}
namespace avx512 {
extern const QuantKernels kQuantKernels;
}
namespace avx512_bf16 {
extern const QuantKernels kQuantKernels;
}

const QuantKernels& GetQuantKernels() {
  switch (CurrentIsa()) {
    case Isa::kAvx2:
      return avx2::kQuantKernels;
    case Isa::kAvx512:
      return avx512::kQuantKernels;
    case Isa::kAvx512Bf16:
      return avx512_bf16::kQuantKernels;
  }
  return avx2::kQuantKernels;
}

void PackQuantized(uint8_t* packed, int64_t feature, const int8_t* q, int64_t k, int bits) {
  uint8_t* to = packed + feature / kPanelFeatures * QuantPanelBytes(k, bits) + feature % kPanelFeatures * 4;
  for (int64_t o = 0; o < QuantOctets(k); ++o, q += 8) {
    if (bits == 4) {
      for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>((q[i] + 8) | (q[i + 4] + 8) << 4);
      to += 4 * kPanelFeatures;
      continue;
    }
    for (int i = 0; i < 4; ++i) {
      to[i] = static_cast<uint8_t>(q[i] + 128);
      to[4 * kPanelFeatures + i] = static_cast<uint8_t>(q[i + 4] + 128);
    }
    to += 8 * kPanelFeatures;
  }
}

}  // namespace fd::cpu

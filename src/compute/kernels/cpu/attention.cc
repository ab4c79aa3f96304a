#include "compute/kernels/cpu/attention.h"

#include "compute/kernels/cpu/isa.h"

namespace fd::cpu {

#define FD_DECLARE(ns)                                     \
  namespace ns {                                           \
  extern const AttentionKernels kAttentionKernelsFloat32;  \
  extern const AttentionKernels kAttentionKernelsBFloat16; \
  }
FD_DECLARE(avx2)
FD_DECLARE(avx512)
FD_DECLARE(avx512_bf16)
#undef FD_DECLARE

const AttentionKernels& GetAttentionKernels(DType act) {
  const bool wide = act == DType::kFloat32;
  switch (CurrentIsa()) {
    case Isa::kAvx512:
      return wide ? avx512::kAttentionKernelsFloat32 : avx512::kAttentionKernelsBFloat16;
    case Isa::kAvx512Bf16:
      return wide ? avx512_bf16::kAttentionKernelsFloat32 : avx512_bf16::kAttentionKernelsBFloat16;
    case Isa::kAvx2:
      break;
  }
  return wide ? avx2::kAttentionKernelsFloat32 : avx2::kAttentionKernelsBFloat16;
}

}  // namespace fd::cpu

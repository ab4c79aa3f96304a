#include "compute/kernels/cpu/rows.h"

#include "compute/kernels/cpu/isa.h"

namespace fd::cpu {

#define FD_DECLARE(ns)                         \
  namespace ns {                               \
  extern const RowKernels kRowKernelsFloat32;  \
  extern const RowKernels kRowKernelsBFloat16; \
  }
FD_DECLARE(avx2)
FD_DECLARE(avx512)
FD_DECLARE(avx512_bf16)
#undef FD_DECLARE

const RowKernels& GetRowKernels(DType act) {
  const bool wide = act == DType::kFloat32;
  switch (CurrentIsa()) {
    case Isa::kAvx512:
      return wide ? avx512::kRowKernelsFloat32 : avx512::kRowKernelsBFloat16;
    case Isa::kAvx512Bf16:
      return wide ? avx512_bf16::kRowKernelsFloat32 : avx512_bf16::kRowKernelsBFloat16;
    case Isa::kAvx2:
      break;
  }
  return wide ? avx2::kRowKernelsFloat32 : avx2::kRowKernelsBFloat16;
}

}  // namespace fd::cpu

// out row p = W_e * in row p for the pairs p in [offsets[e], offsets[e + 1]) of expert e. float32
// accumulation over k in ascending order, one rounding; a row's result does not depend on the other rows.
#pragma once

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cuda {

struct GroupedGemm {
  int64_t pairs, experts, n, k;
  DType act, weight;
  void* out;               // [pairs, n] act
  const void* in;          // [pairs, k] act
  const int32_t* offsets;  // device [experts + 1]
  const void* weights;     // device array of `experts` addresses: [n, k] row-major
  const void* maps;        // device array of tensor maps (Hopper kernels only)
};

// Any device and type, plain arithmetic.
void GroupedGemmPortable(const GroupedGemm& g, void* stream);

// bfloat16 on Hopper (sm_90a): weights are wgmma's first operand, so that few rows per expert waste little,
// and every variant adds over k in the same order. n and k multiples of 8.
bool GroupedGemmSm90Usable(DType act, DType weight, int64_t n, int64_t k);
void GroupedGemmSm90(const GroupedGemm& g, void* stream);
// n = 2 * width, gate rows first: out [pairs, width] = silu(gate) * up, rounded as ops/elementwise SwiGlu
// does. width a multiple of 8.
void GroupedGateUpSm90(const GroupedGemm& g, void* stream);

inline constexpr int64_t kTensorMapBytes = 128;
// Host copies of the tensor maps of one expert's [n, k] weight for the two functions above.
void GroupedWeightMapSm90(void* map, const void* weight, int64_t n, int64_t k);
void GroupedGateUpMapSm90(void* map, const void* weight, int64_t n, int64_t k);

}  // namespace fd::cuda

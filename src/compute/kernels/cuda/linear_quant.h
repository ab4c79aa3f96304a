// Products with weights of 8 or 4 bits in the panels of kernels/cpu/linear_quant.h (the same bytes), each
// with one bfloat16 scale a feature and group of k:
//   out = sum over groups of (float32 sum of q x) * scale (+ bias)
// q is exact in bfloat16, so that nothing is rounded but the float32 sums. Sums are of q x, 127 / absmax
// times those of the weights: they overflow where inputs are beyond 1e34. float32 rows, and rows of bfloat16
// off 16 bytes or of a k that 8 does not divide, take plain float32 arithmetic instead: the sum over k of x
// times (q * scale).
#pragma once

#include <cstdint>

#include "compute/kernels/cuda/linear.h"

namespace fd::cuda {

struct QuantLinear {
  LinearArgs linear;             // weight: panels; with experts: out and in have a row a pair, m of them
  const void* scales = nullptr;  // bfloat16 [panels][groups][16]
  int bits = 8;                  // or 4
  int64_t group_size = 0;        // a multiple of 32, or 0: one group
  // Rows in groups by expert: expert e takes rows offsets[e] to offsets[e + 1] and has its own weight. Device
  // memory; null: one weight for all.
  const int32_t* offsets = nullptr;  // [experts + 1]
  int64_t experts = 0;
  const void* const* expert_weights = nullptr;  // [experts] panels
  const void* const* expert_scales = nullptr;   // [experts]
};

// Any rows. Up to 16 rows without experts, a row's bits do not depend on the other rows or their number; so
// too with experts, and among the row counts beyond 16; with LinearArgs::invariant among all of them.
void LinearQuant(const QuantLinear& args, void* stream);
// gate rows over up rows, n / 2 each: out [m, n / 2] = silu(gate) * up, to the bit what LinearQuant and
// SwiGlu give one after the other. Without bias. False: it does not take this, nothing was launched.
bool LinearQuantSwiGlu(const QuantLinear& args, void* stream);
// Whether LinearQuantSwiGlu takes rows of this type on 16 bytes.
bool QuantSwiGluUsable(DType act, int64_t n, int64_t k);

// The three kernels; what each takes stands in its file.
bool LinearQuantFew(const QuantLinear& args, bool gate_up, void* stream);
bool LinearQuantTiled(const QuantLinear& args, bool gate_up, void* stream);
void LinearQuantSimple(const QuantLinear& args, void* stream);

// Features first_feature to first_feature + rows of a weight with ops::FillRandom's values of (key, scale),
// quantised as on the CPU, without the values ever being in memory.
void QuantizeRandom(void* panels, void* scales, int64_t first_feature, int64_t rows, int64_t k, int bits,
                    int64_t group_size, uint64_t key, float scale, void* stream);

}  // namespace fd::cuda

// y = x W^T over weights of 8 or 4 bits with one bfloat16 scale for each feature and group of k (one group:
// the whole row). Panels of 16 features as in linear.h, k padded to Octets(k) * 8, values stored without a
// sign:
//   8 bits: [panels][octets][2][16][4] bytes q + 128
//   4 bits: [panels][octets][16][4] bytes: q + 8 of element 8 o + i low, of element 8 o + 4 + i high
//   scales: [panels][groups][16]
// Padding features have scale 0, padding elements meet activations of 0.
// bfloat16 activations are rounded to int8 with a scale for each row and block of k (QuantizeRow): a block is
// a group of the weight or, without groups, kQuantRowBlock inputs. Sums within a block are exact int32, so
// that every instruction set gives the same bits:
//   without groups: out = (sum over ascending blocks of float(sum of q a) * block's scale, fused) * scale
//   with groups:    out = sum over ascending blocks of (float(sum of q a) * scale) * block's scale, fused
// and the bias after that.
#pragma once

#include <cstdint>

#include "compute/kernels/cpu/linear.h"
#include "compute/tensor/dtype.h"

namespace fd::cpu {

// Beyond so many input features an int32 sum of 127 * 127 could overflow.
inline constexpr int64_t kMaxQuantDepth = 131072;
// Inputs of a block where the weight has no groups: shorter ones round less and cost more
// (docs/PERFORMANCE.md). A multiple of 32.
inline constexpr int64_t kQuantRowBlock = 512;

// Static: each instruction set keeps its own copy.
static constexpr int64_t QuantOctets(int64_t k) { return (k + 7) / 8; }
// group_size 0: one group.
static constexpr int64_t QuantGroups(int64_t k, int64_t group_size) {
  return group_size == 0 ? 1 : (k + group_size - 1) / group_size;
}
static constexpr int64_t QuantBlockSize(int64_t group_size) {
  return group_size == 0 ? kQuantRowBlock : group_size;
}
static constexpr int64_t QuantBlocks(int64_t k, int64_t group_size) {
  return QuantGroups(k, QuantBlockSize(group_size));
}
static constexpr int64_t QuantPanelBytes(int64_t k, int bits) {
  return QuantOctets(k) * kPanelFeatures * bits;
}
// A row of activations: float scales [blocks], int32 sums of each block's values, int8 values [8 * octets].
static constexpr int64_t QuantRowBytes(int64_t k, int64_t group_size) {
  return 8 * QuantBlocks(k, group_size) + QuantOctets(k) * 8;
}

struct QuantBlock {
  LinearBlock linear;                // in_rows: QuantizeRow's, or floats for the f32 kernels
  const BFloat16* scales = nullptr;  // from panel 0
  int64_t group_size = 0;            // a multiple of 32, or 0
};

struct QuantKernels {
  // int8 activations times 8 or 4 bits.
  void (*run8)(const QuantBlock& block);
  void (*run4)(const QuantBlock& block);
  // float32 activations times q * scale, which float32 holds exactly; one accumulator, ascending k.
  void (*run8_f32)(const QuantBlock& block);
  void (*run4_f32)(const QuantBlock& block);
  // Per block: scale = absmax / 127, values round-half-even(x * (127 / absmax)). Blocks below 2^-100 count as
  // zero; one that is not finite gets scale NaN, so the row's results are NaN.
  void (*quantize_row)(uint8_t* to, const BFloat16* in, int64_t k, int64_t group_size);
  // Per group: scale = bfloat16(absmax / limit), q = round-half-away(w / absmax * limit), limit 127 or 7; q 0
  // where the scale is 0, scale NaN and q 0 where a weight is not finite. q [k], scales [groups].
  void (*quantize_weights)(int8_t* q, BFloat16* scales, const float* w, int64_t k, int bits,
                           int64_t group_size);
};
// For CurrentIsa().
const QuantKernels& GetQuantKernels();

// q [8 * octets] becomes feature `feature` of `packed`.
void PackQuantized(uint8_t* packed, int64_t feature, const int8_t* q, int64_t k, int bits);

}  // namespace fd::cpu

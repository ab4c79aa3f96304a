// Answers of ops/norm, ops/elementwise and ops/rope; the same operands.
#pragma once

#include <vector>

#include "compute/tensor/tensor.h"

namespace fd::reference {

// `act` is the type of the intermediate roundings, so that out may be float32.
void RmsNorm(const TensorView& out, const TensorView& in, const TensorView& weight, float eps, DType act);
void LayerNorm(const TensorView& out, const TensorView& in, const TensorView& weight, const TensorView& bias,
               float eps);
void SwiGlu(const TensorView& out, const TensorView& gate_up, DType act);
void QuickGelu(const TensorView& out, const TensorView& in);
void Gelu(const TensorView& out, const TensorView& in);
void Add(const TensorView& out, const TensorView& a, const TensorView& b);
// ops/pool in double precision: [n], the sum of rows [first, last) of float32 rows [m, n].
std::vector<double> SumOfRows(const TensorView& rows, int64_t first, int64_t last);
void NormalizePixels(const TensorView& out, const TensorView& in, const float* mean, const float* std);
void RopeCosSin(const TensorView& cos_sin, const TensorView& positions, const TensorView& inv_freq,
                const TensorView& axis, float scale = 1.0f);
// Out of place: out, x [tokens, heads, head_dim].
void ApplyRope(const TensorView& out, const TensorView& x, const TensorView& cos_sin, bool interleaved);

}  // namespace fd::reference

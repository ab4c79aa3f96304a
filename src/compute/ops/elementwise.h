// Activations and other functions of single elements.
#pragma once

#include "compute/ops/context.h"

namespace fd::ops {

// out[i] = silu(gate_up[i]) * gate_up[i + n]; silu and the product are each rounded to act. out [rows, n];
// gate_up [rows, 2n].
void SwiGlu(const Context& ctx, const TensorView& out, const TensorView& gate_up);
// x * sigmoid(1.702 x). out may be in. [rows, n] act.
void QuickGelu(const Context& ctx, const TensorView& out, const TensorView& in);
// 0.5 x (1 + erf(x / sqrt 2)), the exact form. out may be in. [rows, n] act.
void Gelu(const Context& ctx, const TensorView& out, const TensorView& in);
// out = a + b, rounded to act; out may be a or b. [rows, n] act.
void Add(const Context& ctx, const TensorView& out, const TensorView& a, const TensorView& b);
// out = (float(in) - 255 mean) / (255 std) per colour, rounded to act. out [patches, 3 * side * side] act; in
// uint8 of the same shape, channel-major; mean, std: three floats each in host memory.
void NormalizePixels(const Context& ctx, const TensorView& out, const TensorView& in, const float* mean,
                     const float* std);

}  // namespace fd::ops

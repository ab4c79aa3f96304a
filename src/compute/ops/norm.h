// RMSNorm and LayerNorm; statistics in float32.
#pragma once

#include "compute/ops/context.h"

namespace fd::ops {

// out = weight * round(x * rsqrt(mean(x^2) + eps)), rounded to act before the multiplication as transformers
// does. out may be in. out, in [rows, n] act; weight [n] act.
void RmsNorm(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& weight,
             float eps);

// residual += in (rounded to act), then out = RmsNorm(residual). residual, in, out [rows, n] act; out may be
// in.
void AddRmsNorm(const Context& ctx, const TensorView& out, const TensorView& residual, const TensorView& in,
                const TensorView& weight, float eps);

// out = (x - mean) * rsqrt(var + eps) * weight + bias, one rounding. out may be in.
// out, in [rows, n] act; weight, bias [n] act.
void LayerNorm(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& weight,
               const TensorView& bias, float eps);

}  // namespace fd::ops

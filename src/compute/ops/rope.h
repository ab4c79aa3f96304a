// Rotary position embedding in one, two or three dimensions (reference/ernie45-architecture 2, 4.1, 5.1).
#pragma once

#include "compute/ops/context.h"

namespace fd::ops {

// kInterleaved rotates pairs (2i, 2i + 1), as ERNIE's text model does; kHalfSplit pairs (i, i + head_dim /
// 2), as its ViT and Llama do.
enum class RopeStyle : uint8_t { kInterleaved, kHalfSplit };

// cos_sin[t][0][i] = scale * cos(a), cos_sin[t][1][i] = scale * sin(a), a = inv_freq[i] *
// positions[axis[i]][t]; all in float32, cosine and sine exact for any a.
// Computed once a step for all layers. cos_sin float32 [tokens, 2, half]; positions int32 [axes, tokens];
// inv_freq float32 [half]; axis int32 [half], each in [0, axes).
void RopeCosSin(const Context& ctx, const TensorView& cos_sin, const TensorView& positions,
                const TensorView& inv_freq, const TensorView& axis, float scale = 1.0f);

// Rotates x in place, in float32, one rounding. x [tokens, heads, head_dim] act, rows may be strided; cos_sin
// [tokens, 2, head_dim / 2].
void ApplyRope(const Context& ctx, const TensorView& x, const TensorView& cos_sin, RopeStyle style);

}  // namespace fd::ops

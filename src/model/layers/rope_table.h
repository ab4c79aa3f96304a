// Frequencies of a rotary embedding and the axis of positions that each follows (reference 2, 4.1, 5.1).
#pragma once

#include "compute/ops/rope.h"
#include "model/config/model_config.h"
#include "model/weights/weight_loader.h"

namespace fd {

struct RopeTable {
  Tensor inv_freq;                // float32 [head_dim / 2]
  Tensor axis;                    // int32 [head_dim / 2]
  float attention_factor = 1.0f;  // what cosine and sine are multiplied by
};

// Text: inv[i] = theta^(-2i / head_dim), scaled as rope_frequencies.h says. Axes of positions are t, h, w;
// without mrope_section all follow t. Else the first h + w frequencies follow h (even) and w (odd), the rest
// t.
RopeTable MakeTextRope(WeightLoader& loader, const ModelConfig& config);
// ViT: half of the frequencies for y (axis 0), the same again for x (axis 1).
RopeTable MakeVisionRope(WeightLoader& loader, const VisionConfig& config);

}  // namespace fd

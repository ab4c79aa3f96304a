// From patches to tokens of the text model (reference 5.2): 2x2 patches merge in space, pairs of frames in
// time.
#pragma once

#include "model/vision/vit.h"

namespace fd {

// norm(fc2(gelu(fc1 x)))
struct MergeWeights {
  BiasedLinear fc1;
  BiasedLinear fc2;
  Norm norm;
};
struct ResamplerWeights {
  MergeWeights spatial;   // [4 * vit hidden] -> the same
  MergeWeights temporal;  // [8 * vit hidden] -> [4 * vit hidden]
  BiasedLinear out;       // [hidden, 4 * vit hidden]
  Tensor after_norm;      // RMSNorm, with the text model's eps
};
ResamplerWeights LoadResampler(WeightLoader& loader, const ModelConfig& config);

// merged [rows / 4, 4 * vit hidden] act; patches [rows, vit hidden] act, 2x2 blocks of one frame consecutive.
void MergeSpace(const ops::Context& ctx, const TensorView& merged, const TensorView& patches,
                const ResamplerWeights& weights, const VisionConfig& config);
// out [tokens, hidden] act. A picture's row joins itself, a video's row p of frame 2i the same row of frame
// 2i + 1. merged: all frames of `grids` one after another. `host` as for Vit.
void MergeTime(const ops::Context& ctx, const TensorView& out, const TensorView& merged,
               const std::vector<EncodeBatch::Grid>& grids, const ResamplerWeights& weights,
               const ModelConfig& config, std::vector<int32_t>& host);
int64_t MergeSpaceScratchBytes(const VisionConfig& config, DType act, int64_t rows);
int64_t MergeTimeScratchBytes(const VisionConfig& config, DType act, int64_t tokens, DeviceType device);

}  // namespace fd

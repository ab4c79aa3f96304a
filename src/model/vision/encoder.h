// Pictures and videos -> rows that replace placeholders' embeddings: the tower, then the resampler. See
// Model::Encode.
#pragma once

#include "model/vision/resampler.h"
#include "model/vision/vit.h"

namespace fd {

struct VisionEncoder {
  VitWeights vit;
  ResamplerWeights resampler;
  RopeTable rope;
  std::vector<int32_t> host;     // indices on their way to the device; one thread at a time encodes
  std::vector<VitFrame> frames;  // of the group in work
};
VisionEncoder LoadVisionEncoder(const ops::Context& ctx, WeightLoader& loader, const ModelConfig& config);

// Frames are independent in the tower, so it walks them in groups of bounded size. Probes "vision_output"
// (patches of a group) and "resampler_output".
void EncodeVision(const ops::Context& ctx, const TensorView& embeddings, const EncodeBatch& batch,
                  VisionEncoder& encoder, const ModelConfig& config, const TensorProbe& probe);
int64_t VisionEncoderScratchBytes(const ModelConfig& config, DType act, int64_t patch_rows,
                                  int64_t frame_rows, int64_t threads, DeviceType device);

}  // namespace fd
